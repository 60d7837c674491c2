//! Children of which only some members are sent: what `list` answers when its `fields` ask for less than everything.
//!
//! In JSON such a child is an object with `id` and the members that were asked for, and with `shortened` where one of these
//! is. In the binary form the set of members stands once before all children, and each child is its id, these members in
//! the order of [`Field::ALL`], and those of them that are shortened.

mod decode;
mod fields;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, SeqAccess};
use serde::ser::{SerializeMap, SerializeTuple};
use serde::{Serialize, Serializer};

use crate::child::{Child, ChildId, ChildState, Cleaned, Containment, Exit, Owner};
use crate::create::Lifetime;
use crate::name::Name;
use crate::timestamp::Timestamp;
use crate::usage::Usage;
pub use fields::Fields;

macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident $member:ident: $type:ty;)*) => {
        /// A member of a child that `list` can be asked for, apart from the id, which is always there.
        ///
        /// The order of the variants is part of the binary encoding: new ones go to the end.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Field {
            $($(#[$doc])* $variant,)*
        }

        impl Field {
            /// Every field, in the order in which they are sent.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The field as it is written on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($member),)*
                }
            }
        }

        impl<'a> PartialChild<'a> {
            $(
                $(#[$doc])*
                ///
                /// `None` where it was not asked for.
                #[must_use]
                pub fn $member(&self) -> Option<&'a $type> {
                    self.fields.contains(Field::$variant).then_some(&self.child.$member)
                }
            )*

            fn serialize_entry<M: SerializeMap>(&self, field: Field, map: &mut M) -> Result<(), M::Error> {
                match field {
                    $(Field::$variant => map.serialize_entry(stringify!($member), &self.child.$member),)*
                }
            }

            fn serialize_element<T: SerializeTuple>(&self, field: Field, tuple: &mut T) -> Result<(), T::Error> {
                match field {
                    $(Field::$variant => tuple.serialize_element(&self.child.$member),)*
                }
            }

            fn same(&self, other: &Self, field: Field) -> bool {
                match field {
                    $(Field::$variant => self.child.$member == other.child.$member,)*
                }
            }
        }

        /// Reads one member of a child from the front of a sequence.
        fn read_element<'de, A: SeqAccess<'de>>(
            field: Field,
            child: &mut Child,
            elements: &mut A,
        ) -> Result<(), A::Error> {
            let missing = || de::Error::missing_field(field.as_str());
            match field {
                $(Field::$variant => child.$member = elements.next_element()?.ok_or_else(missing)?,)*
            }
            Ok(())
        }
    };
}

fields! {
    /// The name, if it has one.
    Name name: Option<Name>;
    /// The labels.
    Labels labels: BTreeMap<String, String>;
    /// The command line.
    Command command: Vec<String>;
    /// The process; none before it is spawned and once it has ended.
    Pid pid: Option<u32>;
    /// The user who created it.
    Owner owner: Owner;
    /// The state in its life.
    State state: ChildState;
    /// The time at which it was asked for.
    CreatedAt created_at: Timestamp;
    /// The time at which its present process was started.
    StartedAt started_at: Option<Timestamp>;
    /// The number of times that it was started again.
    Restarts restarts: u32;
    /// What its life is bound to.
    Lifetime lifetime: Lifetime;
    /// Its place in the order of a shutdown.
    StopOrder stop_order: i32;
    /// How it ended, once its process has.
    Exit exit: Option<Exit>;
    /// What its cleanup command did, once that has run.
    Cleanup cleanup: Option<Cleaned>;
    /// What holds its descendants together.
    Containment containment: Containment;
    /// What it says of itself.
    StatusText status_text: Option<String>;
    /// What it uses, where that can be told.
    Usage usage: Option<Box<Usage>>;
}

/// One child of which only some members are known.
#[derive(Clone, Copy)]
pub struct PartialChild<'a> {
    child: &'a Child,
    fields: Fields,
}

impl PartialChild<'_> {
    /// The id.
    #[must_use]
    pub fn id(&self) -> ChildId {
        self.child.id
    }

    /// Those of the members that are known of which only the beginning is, or nothing.
    #[must_use]
    pub fn shortened(&self) -> Fields {
        self.child.shortened.and(self.fields)
    }
}

impl PartialEq for PartialChild<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields
            && self.child.id == other.child.id
            && self.shortened() == other.shortened()
            && self.fields.iter().all(|field| self.same(other, field))
    }
}

impl fmt::Debug for PartialChild<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PartialChild")
            .field("id", &self.child.id)
            .field("fields", &self.fields)
            .finish()
    }
}

impl Serialize for PartialChild<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let shortened = self.shortened();
            let mut object = serializer.serialize_map(None)?;
            object.serialize_entry("id", &self.child.id)?;
            // What cannot be told is absent, as in the whole child.
            let untold = |field: &Field| *field == Field::Usage && self.child.usage.is_none();
            for field in self.fields.iter().filter(|field| !untold(field)) {
                self.serialize_entry(field, &mut object)?;
            }
            if !shortened.is_empty() {
                object.serialize_entry("shortened", &shortened)?;
            }
            return object.end();
        }
        let mut tuple = serializer.serialize_tuple(2 + self.fields.len())?;
        tuple.serialize_element(&self.child.id)?;
        for field in self.fields.iter() {
            self.serialize_element(field, &mut tuple)?;
        }
        tuple.serialize_element(&self.shortened())?;
        tuple.end()
    }
}

/// Children of which the same members are known, in the order of the answer.
///
/// The children themselves are shared, not copied: what was not asked for is left out when they are encoded.
#[derive(Clone)]
pub struct PartialChildren {
    fields: Fields,
    children: Vec<Arc<Child>>,
}

impl PartialChildren {
    /// Children that are to be shown with these fields alone.
    #[must_use]
    pub fn new(fields: Fields, children: Vec<Arc<Child>>) -> Self {
        Self { fields, children }
    }

    /// The same children with what they use, where that is known.
    #[must_use]
    pub fn with_usage(mut self, usage_of: impl Fn(ChildId) -> Option<Usage>) -> Self {
        for child in &mut self.children {
            if let Some(usage) = usage_of(child.id) {
                Arc::make_mut(child).usage = Some(Box::new(usage));
            }
        }
        self
    }

    /// The same children, each changed by this in a way that keeps their order.
    #[must_use]
    pub fn map_all(self, change: impl FnOnce(Vec<Arc<Child>>) -> Vec<Arc<Child>>) -> Self {
        Self { children: change(self.children), ..self }
    }

    /// Returns the children themselves, where all members of them are known.
    ///
    /// # Errors
    /// Gives these back where they are not.
    pub fn into_whole(self) -> Result<Vec<Arc<Child>>, Self> {
        let is_whole = Field::ALL.iter().all(|field| self.fields.contains(*field));
        if is_whole { Ok(self.children) } else { Err(self) }
    }

    /// The members that are known.
    #[must_use]
    pub fn fields(&self) -> Fields {
        self.fields
    }

    /// The number of children.
    #[must_use]
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Returns the children, each with what is known of it.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = PartialChild<'_>> {
        self.children.iter().map(|child| PartialChild { child, fields: self.fields })
    }
}

impl PartialEq for PartialChildren {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields && self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for PartialChildren {}

impl fmt::Debug for PartialChildren {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

/// The children of a [`PartialChildren`], one after the other.
struct Rows<'a>(&'a PartialChildren);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter())
    }
}

impl Serialize for PartialChildren {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let mut object = serializer.serialize_map(Some(1))?;
            object.serialize_entry("children", &Rows(self))?;
            return object.end();
        }
        (self.fields, Rows(self)).serialize(serializer)
    }
}
