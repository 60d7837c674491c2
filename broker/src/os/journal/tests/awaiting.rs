use super::*;

/// A journal that waits for whoever holds its file, however long that takes on a busy machine.
fn patient(path: &Path) -> Writing {
    Writing::start(open(path).unwrap().0.waiting_for(PATIENCE))
}

/// Keeps a journal from writing until it is dropped.
fn locked(path: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

#[test]
fn an_attempt_that_somebody_waits_for_is_told_when_what_it_covers_is_written() {
    let (_folder, path) = scratch();
    let mut writing = patient(&path);
    assert_eq!(writing.journal.await_attempt(), None);
    let (mut told, mut lock) = (None, Some(locked(&path)));
    for number in 1..=500 {
        writing.submit(number, intent(number));
        // Whether the thread is slower than this one is left open but for the first.
        let awaited = writing.journal.await_attempt();
        assert!(lock.take().is_none() || awaited.is_some());
        let Some(awaited) = awaited else { continue };
        while told < Some(awaited) {
            told = Some(writing.attempts.recv_timeout(PATIENCE).unwrap());
        }
        assert_eq!(told, Some(awaited), "nothing else was submitted");
        assert_eq!(check(&path).unwrap().len(), usize::try_from(number).unwrap());
        assert_eq!(writing.journal.attempted(), awaited);
    }
    drop(writing.journal);
    assert!(writing.attempts.recv().is_err(), "nobody is told twice");
}

#[test]
fn an_attempt_that_nobody_waits_for_is_not_told() {
    let (_folder, path) = scratch();
    let mut writing = Writing::open(&path);
    for number in 1..=50 {
        writing.write(number, intent(number)).unwrap();
        writing.submit(number, progress("on"));
    }
    writing.journal.flush(PATIENCE).unwrap();
    assert_eq!(writing.journal.await_attempt(), None);
    drop(writing.journal);
    assert!(writing.attempts.recv().is_err());
}

#[test]
fn several_positions_that_are_waited_for_at_once_are_all_told() {
    let (_folder, path) = scratch();
    let mut writing = patient(&path);
    let lock = locked(&path);
    let positions: Vec<_> = (1..=4)
        .map(|number| {
            writing.submit(number, intent(number));
            writing.journal.await_attempt().unwrap()
        })
        .collect();
    assert!(positions.is_sorted() && writing.journal.attempted() < positions[0]);
    drop(lock);
    let mut told = Vec::new();
    while told.last() < positions.last() {
        told.push(writing.attempts.recv_timeout(PATIENCE).unwrap());
    }
    // One attempt may have begun with the first of them; the next one has all the rest.
    assert!(told.len() <= 2 && told[0] >= positions[0], "{told:?} of {positions:?}");
}
