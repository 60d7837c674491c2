//! The bounds of a broker: what its flags say, as far as there are descriptors for it.

use procbroker_core::Bounds;

use crate::os::host::nofile::Nofile;

/// Where the bounds that descriptors are needed for come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes {
    /// Where the bound on children comes from.
    pub(super) children: BoundSource,
    /// Where the bound on connections comes from.
    pub(super) connections: BoundSource,
}

/// Where a bound comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BoundSource {
    /// Somebody has asked for so many.
    Flag,
    /// Nobody has asked for any number.
    Default,
}

/// Lowers bounds to what the descriptors are enough for.
pub(super) fn within(mut bounds: Bounds, wishes: Wishes, nofile: Nofile) -> Bounds {
    let shares = nofile.shares(bounds.max_connections);
    let children = (&mut bounds.max_children, &mut bounds.max_children_per_user);
    if let Some(message) = lower("children", shares.children, nofile, children) {
        tell(wishes.children, &message);
    }
    let connections = (&mut bounds.max_connections, &mut bounds.max_connections_per_user);
    if let Some(message) = lower("connections", shares.connections, nofile, connections) {
        tell(wishes.connections, &message);
    }
    bounds
}

/// What nobody has asked for is not missed, as a rule.
fn tell(wish: BoundSource, message: &str) {
    match wish {
        BoundSource::Flag => tracing::warn!("{message}"),
        BoundSource::Default => tracing::info!("{message}"),
    }
}

/// Says what has become of a bound, where that is another one.
fn lower(what: &str, share: u32, nofile: Nofile, (in_all, per_user): (&mut u32, &mut u32)) -> Option<String> {
    if share >= *in_all {
        return None;
    }
    let message = format!(
        "at most {share} {what} instead of {in_all}: the hard limit on open files is {}; start the broker with a higher \
         one (ulimit -Hn, LimitNOFILE=)",
        nofile.hard
    );
    // Whoever may have more than half of all keeps that part; a lower bound stays what it is, as far as half is enough.
    let part = u64::from(share) * u64::from((*per_user).min(*in_all)) / u64::from(*in_all);
    let part = u32::try_from(part).unwrap_or(share);
    *per_user = (*per_user).min(part.max(share / 2).max(1));
    *in_all = share;
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captured_log::captured;

    const WISHES: Wishes = Wishes { children: BoundSource::Default, connections: BoundSource::Default };

    #[test]
    fn bounds_are_lowered_to_what_there_are_descriptors_for_and_a_user_keeps_a_part_of_them() {
        let wanted = Bounds {
            max_children: 1_000,
            max_children_per_user: 500,
            max_connections: 100,
            max_connections_per_user: 200,
            ..Bounds::default()
        };
        let few = within(wanted, WISHES, Nofile { soft: 96, hard: 96 });
        assert_eq!((few.max_children, few.max_children_per_user), (6, 3));
        assert_eq!((few.max_connections, few.max_connections_per_user), (6, 6));
        assert_eq!(within(wanted, WISHES, Nofile { soft: 1_024, hard: u64::MAX }), wanted);
        let low =
            within(Bounds { max_children_per_user: 2, ..wanted }, WISHES, Nofile { soft: 96, hard: 96 });
        assert_eq!((low.max_children, low.max_children_per_user), (6, 2));
        let single =
            within(Bounds { max_children_per_user: 1, ..wanted }, WISHES, Nofile { soft: 96, hard: 96 });
        assert_eq!(single.max_children_per_user, 1);
    }
    #[test]
    fn a_bound_that_is_not_kept_is_a_warning_where_somebody_has_asked_for_it_and_a_remark_where_not() {
        let few = Nofile { soft: 96, hard: 96 };
        let wished = Wishes { children: BoundSource::Flag, ..WISHES };
        for (wishes, level) in [(wished, "WARN"), (WISHES, "INFO")] {
            let log = captured(|| {
                let _lowered = within(Bounds::default(), wishes, few);
            });
            let of_children = log.lines().find(|line| line.contains("children instead of 10000")).unwrap();
            assert!(of_children.trim_start().starts_with(level), "{log}");
            let of_connections = log.lines().find(|line| line.contains("connections instead of")).unwrap();
            assert!(of_connections.trim_start().starts_with("INFO"), "{log}");
        }
    }
}
