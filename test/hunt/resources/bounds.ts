// Named bounds for what one hostile connection may cost. They allow for a noisy machine. The faults that this hunt looks for
// exceed them by far.

const KIB = 1024
const MIB = 1024 * KIB

// The servers under test

/** `idleTimeout`, in milliseconds. */
export const IDLE_TIMEOUT = 4000
/** `drainTimeout`, in milliseconds. It is long enough for draining to be measured. */
export const DRAIN_TIMEOUT = 2500
/** `closeGrace`, in milliseconds. */
export const CLOSE_GRACE = 300

// Memory of the server for one hostile client, in bytes

/** An exchange with its connection and streams, but without buffered content. */
export const QUIET = 96 * KIB
/** One direction is stuck: additionally a highWaterMark and one read of the socket, which is up to 256 KiB. */
export const ONE_DIRECTION = 448 * KIB
/** Both directions are stuck. */
export const BOTH_DIRECTIONS = 768 * KIB

// Release, in milliseconds

/** From when the clients leave until all their resources are free. A client that leaves unnoticed takes two idle timeouts. */
export const RELEASE = 2.5 * IDLE_TIMEOUT + DRAIN_TIMEOUT + 1500
/** From the call of `app.close()` without clients until the process has exited by itself. */
export const PROCESS_END = CLOSE_GRACE + DRAIN_TIMEOUT + 5000

/** Descriptors that the process may open for itself meanwhile. */
export const DESCRIPTOR_NOISE = 1

export const BOUNDS = {
  /** If Fastify alone exceeds a bound, this multiple of what Fastify needs is the bound. */
  timesPlain: 2,
  /** Bytes that code and pools of the process may need, apart from its clients. */
  processMemory: 2 * MIB,
  /** Milliseconds of the longest turn of the event loop while hostile clients connect, fill their sockets and leave. */
  turn: 250,
  /** Bytes by which RSS may grow, apart from the cost of the clients. The process keeps memory that is free again. */
  processGrowth: 128 * MIB,

  /** Bytes of memory in use after a flood: some hundred requests of one read may be in progress on ordinary routes. */
  floodHeld: 16 * MIB,
  /** Additional bytes for each connection of the flood. */
  floodHeldEach: 1 * MIB,
  /** Bytes by which RSS may grow in a flood, including garbage. On Node 24 it levels off at 100 to 145 MiB. */
  floodGrowth: 192 * MIB,
  /** Milliseconds of the longest turn in a flood. A blocked event loop stands still for seconds. */
  floodTurn: 250,
  /** Request rate in a flood, as a fraction of that of Fastify alone, which answers hundreds in one turn of the loop. */
  floodRate: 0.02,
  /** Milliseconds that other clients may wait for an answer during a flood. */
  othersAnswered: 1500
}

/** Requirements that a state need not meet, and why. */
export const EXCLUDED: ReadonlyMap<string, string> = new Map([
  ['queued behind a slow ordinary response', 'the FIN comes after requests that are not read, because buffers are full; connectionTimeout must end the connection'],
  ['CONNECT tunnel, one way stuck', 'without reads and writes the server cannot notice that the client has left; idleTimeout must end the tunnel (issue 19)'],
  ['clients that stay', 'an ordinary response whose handler waits is ended by connectionTimeout, which is set only for clients that stay'],
  ['HTTP/2, app.close()', 'below Node 26 it waits for ever for sessions whose client has left during a body; as with ordinary routes'],
  ['floods over TLS', 'with Fastify alone some Node versions close these connections, so only the named bounds apply']
])
