//! The bounds of a broker: what its flags say, as far as there are descriptors for it.

use procbroker_core::Bounds;

use crate::os::host::nofile::Nofile;

/// Lowers bounds to what the descriptors are enough for.
pub(super) fn within(mut bounds: Bounds, nofile: Nofile) -> Bounds {
    let shares = nofile.shares(bounds.max_connections);
    lower("children", shares.children, nofile, (&mut bounds.max_children, &mut bounds.max_children_per_user));
    lower(
        "connections",
        shares.connections,
        nofile,
        (&mut bounds.max_connections, &mut bounds.max_connections_per_user),
    );
    bounds
}

fn lower(what: &str, share: u32, nofile: Nofile, (in_all, per_user): (&mut u32, &mut u32)) {
    if share >= *in_all {
        return;
    }
    tracing::warn!(
        "at most {share} {what} instead of {in_all}: the hard limit on open files is {}; start the broker with a higher \
         one (ulimit -Hn, LimitNOFILE=)",
        nofile.hard
    );
    // Whoever may have more than half of all keeps that part; a lower bound stays what it is, as far as half is enough.
    let part = u64::from(share) * u64::from((*per_user).min(*in_all)) / u64::from(*in_all);
    let part = u32::try_from(part).unwrap_or(share);
    *per_user = (*per_user).min(part.max(share / 2).max(1));
    *in_all = share;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_lowered_to_what_there_are_descriptors_for_and_a_user_keeps_a_part_of_them() {
        let wanted = Bounds {
            max_children: 1_000,
            max_children_per_user: 500,
            max_connections: 100,
            max_connections_per_user: 200,
            ..Bounds::default()
        };
        let few = within(wanted, Nofile { soft: 96, hard: 96 });
        assert_eq!((few.max_children, few.max_children_per_user), (6, 3));
        assert_eq!((few.max_connections, few.max_connections_per_user), (6, 6));
        assert_eq!(within(wanted, Nofile { soft: 1_024, hard: u64::MAX }), wanted);
        let low = within(Bounds { max_children_per_user: 2, ..wanted }, Nofile { soft: 96, hard: 96 });
        assert_eq!((low.max_children, low.max_children_per_user), (6, 2));
        let single = within(Bounds { max_children_per_user: 1, ..wanted }, Nofile { soft: 96, hard: 96 });
        assert_eq!(single.max_children_per_user, 1);
    }
}
