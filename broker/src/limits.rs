//! The bounds of the edge's queues and waits, by name. What an administrator may want to set is a flag, and stands in
//! `procbroker_core::Bounds`.

use std::time::Duration;

/// Facts of one user that wait for the driver. Its clients beyond it wait in the order of their arrival.
pub const FACTS_WAITING: usize = 32;

/// Reports of finished walks and of the journal that wait for the driver.
pub const REPORTS_WAITING: usize = 1_024;

/// Facts that the driver takes in before it lets the connections send what came of them.
pub const FACTS_A_TURN: usize = 32;

/// When so many connections fewer are open than were at most, the heap is trimmed: what they have used is given back to the system.
pub const CLOSED_BEFORE_TRIM: usize = 256;

/// How long that waits for others to go as well, and for what the driver still has of them.
pub const TRIM_AFTER: Duration = Duration::from_secs(1);

/// Answers that wait for a client to read, beside one for each of its unanswered requests.
pub const ANSWERS_WAITING: usize = 64;

/// Above so many waiting answers a client's requests are not read until it reads.
pub const ANSWERS_BEFORE_READING: usize = 16;

/// An answer that is no longer is given whatever else is on its way to its user: it says no more than a refusal would.
pub const SMALL_ANSWER_BYTES: usize = 1 << 10;

/// Above so many bytes that wait to be written a client's requests are not read until it reads.
pub const WRITE_BYTES_BEFORE_READING: usize = 64 << 10;

/// Bytes that are read from a client at a time.
pub const READ_CHUNK_BYTES: usize = 64 << 10;

/// An answer with more children than this is encoded off the driver's thread: it takes milliseconds, and
/// everybody else would wait for them.
pub const CHILDREN_ENCODED_INLINE: usize = 256;

/// An answer with a longer text than this is encoded off the driver's thread, for the same reason.
pub const TEXT_BYTES_ENCODED_INLINE: usize = 256 << 10;

/// What a connection can be told of events before it asks again: those that it has asked for, that there are more, and, at the
/// exit, all that it has not read.
pub const FED_WAITING: usize = 4;

/// What an event takes beside the texts of its child while it waits for a client to read, in bytes.
pub const EVENT_BYTES: u64 = 512;

/// How long a client that is refused may take to send the request that the refusal answers.
pub const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// How much of that request is read, in bytes.
pub const REFUSAL_BYTES: usize = 64 << 10;

/// How many refused clients may take that long at a time. A request that is there already is answered all the same.
pub const REFUSED_PATIENTLY: usize = 16;

/// Children that are on their way to their programs at a time: as many as the core orders.
pub const SLOTS: usize = procbroker_core::SPAWNS_IN_FLIGHT_MAX as usize;

/// Slots that are made at the start; the others come when they are needed, which is where programs hang.
pub const SLOTS_AT_START: usize = 64;

/// Events of launches that are taken at a time.
pub const LAUNCH_EVENTS: usize = 128;

/// Control groups that are kept ready, where there are descriptors for so many.
pub const SPARE_GROUPS_MAX: usize = 32;

/// Clients whose processes are held, so that less has to be asked of the kernel at each of their creates.
pub const CALLER_STATUSES_MAX: usize = 64;

/// Connections beyond the core's own bound that are held at a time, to be told that they are refused.
pub const REFUSED_AT_A_TIME: usize = 64;

/// Who fetches metrics at a time; the one who was let in first makes room for a further one.
pub const METRICS_READERS_MAX: usize = 8;

/// How long one that fetches metrics may take for all of it.
pub const METRICS_PATIENCE: Duration = Duration::from_secs(5);

/// How much of a request for metrics is read, in bytes.
pub const METRICS_REQUEST_BYTES_MAX: usize = 8 << 10;

/// How many headers a request for metrics may have.
pub const METRICS_HEADERS_MAX: usize = 64;

/// The bounds that turns of the driver are counted by: most take microseconds.
pub const TURN_BOUNDS: [Duration; 12] = [
    Duration::from_micros(10),
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// How long the listener rests when the system has no descriptor left for one more connection.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long the last answers may take to be written when the broker exits.
pub const FLUSH_PATIENCE: Duration = Duration::from_millis(250);

/// How long the last output of children may take to be kept when the broker exits, and a piece of it when another program
/// takes over.
pub const LOGS_PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of children's output that wait to be passed on to the journal or to syslog; what comes beyond is kept all the same,
/// and not passed on.
pub const FORWARD_BYTES_WAITING_MAX: usize = 4 << 20;

/// How many of them are of the same user's children.
pub const FORWARD_BYTES_OF_A_USER_MAX: usize = 1 << 20;

/// Bytes of lines that have begun, of the same user's children; beyond that they are passed on without their ends.
pub const BEGUN_LINE_BYTES_OF_A_USER_MAX: usize = 1 << 20;

/// How long the removal of control groups may take at the very end; those that are left, the next broker removes.
pub const TIDYING_PATIENCE: Duration = Duration::from_secs(3);

/// Lines of the log that wait to be written; beyond that, or beyond [`LOG_BYTES_WAITING`], they are lost, and counted. A shutdown promises a line for
/// each child that needed force: the lines of ten thousand of them fit, however slowly they are read.
pub const LOG_LINES_WAITING: usize = 32_768;

/// Bytes of them: the lines of ten thousand children fit here too. As much again can be on its way to a reader at a time.
pub const LOG_BYTES_WAITING: usize = 8 << 20;

/// How much of a text that is a client's own a line of the log repeats, in characters.
pub const LOG_TEXT_CHARS_MAX: usize = 200;

/// How long the thread that writes the log rests after what it has written: what comes meanwhile is written together, and
/// wakes nobody.
pub const LOG_REST: Duration = Duration::from_millis(5);

/// How long clients may take to read the answers that are on their way when another program takes over.
pub const ANSWERING_PATIENCE: Duration = Duration::from_millis(250);

/// How long the record may take to be complete when another program takes over, or when the broker exits.
pub const RECORD_PATIENCE: Duration = Duration::from_secs(5);

/// How long the next broker waits for a lock that a dead one has left to processes which have yet to execute their
/// programs: what hangs longer than that has to be ended by hand.
pub const LEFT_LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// How long a child may take from its birth to executing its program before it is killed.
pub const SPAWN_PATIENCE: Duration = Duration::from_secs(30);

/// How long processes that belong to no child are killed and waited for at a shutdown; the core exits at its
/// own deadline whether that is over or not.
pub const SWEEP_PATIENCE: Duration = Duration::from_secs(10);

/// Answers with output, and pieces of it, that wait for a client to read; the next is not even read from the disk before
/// there is room.
pub const PACED_WAITING: usize = 2;

/// What a connection may have on its way at a time whatever else is on its way to its user: what waits for it to read,
/// beside that what is being written, and an event.
pub const SHARES_OF_A_CONNECTION: u64 = PACED_WAITING as u64 + 2;

/// How large each of them may be at least, in bytes, however many connections share what may be on its way.
pub const SHARE_BYTES_MIN: u64 = 16;

/// How much output is sent to a follower at a time, in bytes.
pub const LOG_PIECE_BYTES: usize = 64 << 10;

/// How long a follower rests after a piece that was all there was: a child that writes a lot of short lines is
/// sent in fewer pieces.
pub const LOG_PIECE_REST: Duration = Duration::from_millis(10);

/// How much text an answer to `logs` holds at most, as a JSON string, in bytes: what a message may have, less its other
/// members.
pub const LOG_TEXT_BYTES_MAX: usize = procbroker_protocol::limits::ANSWER_BYTES_MAX - (4 << 10);

/// What a line of output takes where the lines that are asked for are not read yet, in bytes.
pub const LINE_BYTES: u64 = 1 << 10;

/// How long an answer waits for room among what is on its way to clients, before its user is told to read that first.
pub const ROOM_PATIENCE: Duration = Duration::from_secs(10);

/// How long a client may read nothing of what it is sent while others need the room.
pub const STALLED_PATIENCE: Duration = Duration::from_secs(30);

/// An answer that takes less than this by itself is not counted among what is on its way: the bounds on requests hold it.
pub const ANSWER_BYTES_UNCOUNTED: u64 = 4 << 10;

/// Of a message that is still arriving, so much is not counted: most are shorter.
pub const MESSAGE_BYTES_UNCOUNTED: usize = 4 << 10;

/// How many lines of its output the error tells of a child that ended before it was ready.
pub const LOG_TAIL_LINES: u32 = 20;

/// Bytes of them, at most.
pub const LOG_TAIL_BYTES_MAX: usize = 4 << 10;

/// How long such an error waits for the disk.
pub const LOG_TAIL_PATIENCE: Duration = Duration::from_secs(2);

/// How many probes are made at a time.
pub const PROBES_MAX: usize = 64;

/// How many of them are of the same user's children.
pub const PROBES_OF_A_USER_MAX: usize = 16;

/// How many processes look for a listener at a path for the same user at a time. One that cannot be killed keeps its place.
pub const LOOKS_OF_A_USER_MAX: usize = 4;

/// How long those that look have to end, after they were killed, before this program is replaced.
pub const LOOKS_PATIENCE: Duration = Duration::from_millis(50);

/// How long a probe waits for an answer.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(1);
