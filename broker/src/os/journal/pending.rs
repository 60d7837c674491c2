//! Merges changes to one child that are not written yet, so that only what still matters is.

use std::collections::BTreeMap;

use procbroker_core::{Run, Safety};
use procbroker_protocol::ChildId;

use super::entry::{Change, Entry, Row, StoredProgress};

/// What waits, by child: one transaction. Ids are in the order of the creations, and so are the rows then.
pub(super) type Batch = BTreeMap<ChildId, Due>;

/// What is to be written about one child.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) content: Content,
    pub(super) safety: Safety,
    /// Who waits for it.
    pub(super) receipts: Vec<Run>,
}

/// What its rows have to be like.
#[derive(Debug)]
pub(super) enum Content {
    /// New, with what became of it already.
    New { intent: PendingIntent, progress: Option<StoredProgress> },
    /// As they are, but for the progress.
    Progress(StoredProgress),
    /// The child's rows are removed.
    Gone,
}

/// What was meant to be started.
#[derive(Debug)]
pub(super) struct PendingIntent {
    pub(super) text: String,
    /// Whether somebody waits for it, and is told when it cannot be written.
    pub(super) is_awaited: bool,
}

impl Due {
    /// What an entry asks for.
    pub(super) fn of(change: Change, safety: Safety, receipt: Option<Run>) -> Self {
        let content = match change {
            Change::Intent(text) => {
                Content::New { intent: PendingIntent { text, is_awaited: receipt.is_some() }, progress: None }
            }
            Change::Progress(progress) => Content::Progress(progress),
            Change::Remove => Content::Gone,
        };
        Self { content, safety, receipts: receipt.into_iter().collect() }
    }

    /// Both, one after the other.
    fn then(mut self, later: Self) -> Self {
        self.receipts.extend(later.receipts);
        let safety = match (self.safety, later.safety) {
            (Safety::Process, Safety::Process) => Safety::Process,
            (Safety::Power, Safety::Process | Safety::Power) | (Safety::Process, Safety::Power) => {
                Safety::Power
            }
        };
        Self { content: self.content.then(later.content), safety, receipts: self.receipts }
    }
}

impl Content {
    fn then(self, later: Self) -> Self {
        match (self, later) {
            (Self::New { intent, .. }, Self::Progress(progress)) => {
                Self::New { intent, progress: Some(progress) }
            }
            (Self::Gone, Self::Progress(_)) => Self::Gone,
            (
                Self::New { .. } | Self::Progress(_) | Self::Gone,
                later @ (Self::New { .. } | Self::Progress(_) | Self::Gone),
            ) => later,
        }
    }

    /// Whether it is an intent that is refused when it cannot be written at once.
    fn is_refusable(&self) -> bool {
        match self {
            Self::New { intent, .. } => intent.is_awaited,
            Self::Progress(_) | Self::Gone => false,
        }
    }
}

/// What was left in the log of intents.
#[derive(Debug, Default)]
pub(super) struct Unfolded {
    pub(super) due: Batch,
    /// In so many entries.
    pub(super) count: u64,
}

impl Unfolded {
    /// What is left there is acted on at once, and has to outlive the machine.
    pub(super) fn new(left: Vec<Entry>) -> Self {
        let mut unfolded = Self { due: Batch::new(), count: u64::try_from(left.len()).unwrap_or(u64::MAX) };
        for entry in left {
            add(&mut unfolded.due, Entry { safety: Safety::Power, ..entry });
        }
        unfolded
    }

    /// What the state file has with that, which cannot be written to.
    pub(super) fn over(&self, rows: Vec<Row>) -> Vec<Row> {
        let mut due: BTreeMap<ChildId, &Due> = self.due.iter().map(|(child, due)| (*child, due)).collect();
        let changed = |row: Row| match due.remove(&row.child).map(|due| &due.content) {
            None => Some(row),
            Some(Content::New { intent, progress }) => Some(new_row(row.child, intent, progress.as_ref())),
            Some(Content::Progress(progress)) => Some(Row { progress: Some(progress.clone()), ..row }),
            Some(Content::Gone) => None,
        };
        let mut rows: Vec<Row> = rows.into_iter().filter_map(changed).collect();
        rows.extend(due.into_iter().filter_map(|(child, due)| match &due.content {
            Content::New { intent, progress } => Some(new_row(child, intent, progress.as_ref())),
            // Of children that are not on record.
            Content::Progress(_) | Content::Gone => None,
        }));
        rows
    }
}

fn new_row(child: ChildId, intent: &PendingIntent, progress: Option<&StoredProgress>) -> Row {
    Row { child, intent: intent.text.clone(), progress: progress.cloned() }
}

/// Adds an entry to what waits.
pub(super) fn add(batch: &mut Batch, entry: Entry) {
    let Entry { child, change, safety, receipt } = entry;
    put(batch, child, Due::of(change, safety, receipt));
}

/// Puts what could not be written before what has come since.
pub(super) fn put_back(batch: &mut Batch, earlier: Batch) {
    let since = std::mem::replace(batch, earlier);
    for (child, due) in since {
        put(batch, child, due);
    }
}

fn put(batch: &mut Batch, child: ChildId, later: Due) {
    let due = match batch.remove(&child) {
        Some(earlier) => earlier.then(later),
        None => later,
    };
    batch.insert(child, due);
}

/// What becomes of a batch that cannot be written: the intents that somebody waits for leave it, and the rest is to be
/// tried again. All who wait are named, and are to be told.
pub(super) fn refuse(batch: &mut Batch) -> Refused {
    let mut refused = Refused { receipts: Vec::new(), intents: 0 };
    batch.retain(|_, due| {
        refused.receipts.append(&mut due.receipts);
        let is_refused = due.content.is_refusable();
        refused.intents = refused.intents.saturating_add(usize::from(is_refused));
        !is_refused
    });
    refused
}

#[derive(Debug)]
pub(super) struct Refused {
    pub(super) receipts: Vec<Run>,
    /// How many intents are among them.
    pub(super) intents: usize,
}

/// The safety that a batch has to be written with.
pub(super) fn safety(batch: &Batch) -> Safety {
    let wants_power = batch.values().any(|due| match due.safety {
        Safety::Process => false,
        Safety::Power => true,
    });
    if wants_power { Safety::Power } else { Safety::Process }
}
