// What one hostile connection may cost, by name. Every bound leaves room for a noisy machine, and the faults that this
// hunt is for go beyond it by far.

const KIB = 1024
const MIB = 1024 * KIB

// The servers under test

/** An exchange that nobody moves ends after this, in milliseconds. */
export const IDLE_TIMEOUT = 4000
/** How long a server drains a body that nobody wants, in milliseconds; long enough to be measured. */
export const DRAIN_TIMEOUT = 2500
/** What open exchanges get when their app closes, in milliseconds. */
export const CLOSE_GRACE = 300

// Memory of the server for one hostile client, in bytes

/** Nothing of a body is held: the exchange, its connection and its streams. */
export const QUIET = 96 * KIB
/** One direction is stuck: a highWaterMark and one read of the socket (up to 256 KiB), beside what is quiet. */
export const ONE_DIRECTION = 448 * KIB
/** Both directions are stuck. */
export const BOTH_DIRECTIONS = 768 * KIB

// Endings, in milliseconds

/** From the leaving of the clients until all they had is free: what nobody sees leave takes two idle timeouts. */
export const RELEASE = 2.5 * IDLE_TIMEOUT + DRAIN_TIMEOUT + 1500
/** From the call of `app.close()`, with no client left, until the process has ended by itself. */
export const PROCESS_END = CLOSE_GRACE + DRAIN_TIMEOUT + 5000

/** Descriptors that a process opens for itself meanwhile. */
export const DESCRIPTOR_NOISE = 1

export const BOUNDS = {
  /** Where Fastify alone needs more than a bound, so many times what it needs is the bound. */
  timesPlain: 2,
  /** Bytes that the code and the pools of a process may need beside its clients. */
  processMemory: 2 * MIB,
  /** Milliseconds of the longest turn while hostile clients come, fill their sockets and leave. */
  turn: 250,
  /** Bytes that the process may take from the system beside what its clients may cost: it keeps what is free again. */
  processGrowth: 128 * MIB,

  /** Bytes that the server may hold in a flood: some hundred requests of one read, all in progress on ordinary routes. */
  floodHeld: 16 * MIB,
  /** Bytes beside for each connection of it. */
  floodHeldEach: 1 * MIB,
  /** Bytes that a process may take from the system in a flood, garbage included: on Node 24 it levels off at 100 to 145 MiB. */
  floodGrowth: 192 * MIB,
  /** Milliseconds of the longest turn in a flood; a loop that is blocked stands still for seconds. */
  floodTurn: 250,
  /** Requests answered in a flood, as a part of what Fastify alone answers: it answers hundreds in one turn of the loop. */
  floodRate: 0.02,
  /** Milliseconds that others may wait for their answer while a flood is on. */
  othersAnswered: 1500
}

/** What is not asked of a state, and why. */
export const EXCLUDED: ReadonlyMap<string, string> = new Map([
  ['queued behind a slow ordinary response', 'the end of the connection lies behind requests that are not read for lack of room; connectionTimeout must end it'],
  ['CONNECT tunnel, one way stuck', 'where nothing is read or written, nobody notices that the client has left: idleTimeout must end it (issue 19)'],
  ['clients that stay', 'an ordinary response that its handler holds is ended by the connectionTimeout, which is set for clients that stay'],
  ['HTTP/2, app.close()', 'below Node 26 it waits for ever for sessions whose client has left within a body, on ordinary routes too'],
  ['floods over TLS', 'on some versions Node closes them with Fastify alone, and they are held against the named bounds only']
])
