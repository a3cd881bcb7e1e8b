// A connection of a watched server. Its bytes go to Node's parser, or to the borrower of the moment.
//
//   1. Node's connection listener has given the socket a parser. We hook the parser, once per connection.
//   2. The parser reads a head, and Node emits 'request'. Fastify routes the request, and a duplex route claims it, all in one
//      call stack.
//   3. For a claimed request the parser stops behind the head. The rest of what it was given is held for the borrower.
//   4. From the first exchange on, our listeners replace Node's. They pass bytes on to the borrower, or to Node's listeners
//      while there is none. Only the listener for 'error' changes with each exchange. Bytes that nobody wants yet wait here,
//      up to one read, and in the kernel.
//   5. After the exchange the parser is woken, and reads the next request.
//
// One class, since the same few fields decide in every step whose the next byte is.

import assert from 'node:assert'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type Listeners, findListeners, swapListeners } from '../node/listeners.ts'
import { type HeadCallback, type Parser, STOP_AFTER_HEAD, bufferOf, hookParser, isUpgrade, parse, resumeParser, routeUpgrade, wakeParser } from '../node/parser.ts'
import { allowsHalfOpen, clearCongested, isCongested, serverOf, setSocketTimeout, startReading, stopReading } from '../node/socket.ts'
import { resetFlow, setAutoDestroy } from '../node/streams.ts'
import { type Landed, ReadBuffers, asLanded, copyForUser, copyIfLanded, copyOf } from '../relay/read-buffers.ts'
import { NO_BYTES, restOf } from '../transfer/body-reader.ts'
import type { Claim } from './claim.ts'
import { type Gate, belongsToUpgradeListener } from './gate.ts'

/** Bytes given to Node's parser in one turn of the event loop: as many as Node itself reads at a time. */
const NODE_READ_SIZE = 64 * 1024

/** The connection whose request is being routed in the current call stack. */
let routing: Connection | null = null

/** The connection of a request, while it is being routed. */
export function routingConnection (request: IncomingMessage): Connection | null {
  return routing?.request === request ? routing : null
}

export class Connection {
  readonly socket: Socket
  readonly parser: Parser
  // Of the request that is being routed
  request: IncomingMessage | null = null
  response: ServerResponse | null = null
  /** As llhttp sees it. */
  shouldKeepAlive = false
  /** From the claim of a request until the connection is returned. */
  claim: Claim | null = null
  /** Bytes behind a head or a body that nobody has wanted yet. */
  held: Buffer = NO_BYTES
  /** The client has ended its side. */
  ended = false
  private readonly gate: Gate
  private readonly buffers: ReadBuffers
  private parsed: number | Error = 0 // how much of its last buffer, by the parser
  private passing = false
  private stopped = false
  private pumpsLater = false
  private nodeEnded = false // Node was told of the client's end
  private error: Error | null = null
  private halfOpen = false
  private nodeListeners: Listeners | null = null
  private listeners: Listeners | null = null // in their place

  constructor (socket: Socket, parser: Parser, gate: Gate) {
    this.socket = socket
    this.parser = parser
    this.gate = gate
    this.buffers = new ReadBuffers(socket)
    const unhook = hookParser(parser, this)
    socket.on('close', () => {
      unhook()
      const { claim } = this
      this.claim = null
      claim?.borrower.onClose(this.error)
    })
  }

  // Hooks of the parser

  onHead (request: IncomingMessage, shouldKeepAlive: boolean, next: HeadCallback): number {
    if (isUpgrade(request) && !belongsToUpgradeListener(request, this.gate)) routeUpgrade(request)
    const outer = routing
    routing = this
    this.request = request
    this.shouldKeepAlive = shouldKeepAlive
    try {
      const result = next(request, shouldKeepAlive)
      if (isUpgrade(request)) this.leaveToUpgrade()
      else if (request.method === 'CONNECT' && this.claim === null) this.gate.onUnclaimedConnect(request)
      return this.claim === null ? result : STOP_AFTER_HEAD
    } finally {
      routing = outer
      this.request = this.response = null
    }
  }

  onExecuted (parsed: number | Error): void {
    this.parsed = parsed
    if (this.hasStopped) this.take(bufferOf(this.parser))
  }

  execute (buffer: Buffer): number | Error {
    // The parser gets no more of what we pass on than Node would read at a time. Node's listener gets all of it: behind a head
    // that upgrades, it gives the rest to the listeners of 'upgrade'.
    const share = this.listeners !== null && buffer.length > NODE_READ_SIZE ? buffer.subarray(0, NODE_READ_SIZE) : buffer
    this.parsed = parse(this.parser, share)
    if (this.hasStopped) this.take(buffer)
    else if (share !== buffer && this.listeners !== null && typeof this.parsed === 'number') this.held = join(buffer.subarray(this.parsed), this.held)
    return this.parsed
  }

  /** Whether the parser has just stopped behind the head of a claimed request. */
  private get hasStopped (): boolean {
    return this.claim !== null && !this.claim.taken && typeof this.parsed === 'number'
  }

  // Passing bytes on

  /** Passes on what is held, then what is read, as far as it is wanted. */
  pump (): void {
    if (this.passing) return
    while (this.isWanted && this.held.length > 0) {
      const { held, claim } = this
      this.held = NO_BYTES
      this.pass(asLanded(held))
      // The parser has had its share of this turn.
      if (claim === null && this.claim === null && this.held.length > 0) {
        this.pumpLater()
        return
      }
    }
    // Read only when nothing is held. Otherwise each exchange would let one more read be added to it.
    if (!this.isWanted || this.held.length > 0) return
    this.start()
    if (!this.ended) return
    if (this.claim !== null) {
      this.claim.borrower.onEnd()
    } else if (!this.nodeEnded) {
      // Node ends its side with the client's. What was held may have been requests, which get their answers first if possible.
      this.nodeEnded = true
      setImmediate(() => { if (!this.socket.destroyed) this.nodeListeners!.end() })
    }
  }

  /** Passes on what is held in the next turn of the event loop: a client that pipelines must leave room for the others. */
  private pumpLater (): void {
    if (this.pumpsLater) return
    this.pumpsLater = true
    setImmediate(() => {
      this.pumpsLater = false
      this.pump()
    })
  }

  /** Stops reading at once. */
  stop (): void {
    if (this.stopped) return
    this.stopped = true
    stopReading(this.socket)
  }

  private start (): void {
    if (!this.stopped) return
    this.stopped = false
    startReading(this.socket)
  }

  /** Puts bytes back in front of those that are held. */
  unread (bytes: Buffer): void {
    this.held = join(bytes, this.held)
  }

  /** Whether the parser, or a borrower that reads, wants data now. */
  private get isWanted (): boolean {
    const { socket, claim } = this
    if (this.listeners === null || socket.destroyed) return false
    // While its responses are congested, Node's 'data' listener must not be called: it asserts that reading is not paused.
    return claim === null ? !isCongested(socket) : claim.reading
  }

  private receive (data: Landed): void {
    if (this.passing || this.held.length > 0 || !this.isWanted) {
      this.held = join(this.held, copyIfLanded(data))
      this.stop()
    } else if (this.claim === null && data.length > NODE_READ_SIZE) {
      this.held = copyIfLanded(data)
      this.stop()
      this.pump()
    } else {
      this.pass(data)
      if (this.held.length > 0) this.pump()
    }
  }

  private pass (data: Landed): void {
    this.passing = true
    try {
      if (this.claim === null) this.nodeListeners!.data(copyIfLanded(data))
      else this.claim.borrower.onData(data)
    } finally {
      this.passing = false
    }
  }

  // Borrowing and returning

  /** Takes the connection for the claimed request. `buffer` is the last that the parser was given. */
  private take (buffer: Buffer): void {
    const { socket, claim, parsed } = this
    assert(claim !== null && !claim.taken && typeof parsed === 'number')
    const nodeListeners = this.nodeListeners ??= findListeners(socket)
    // A connection that failed while earlier requests of the same buffer were read is being destroyed: 'close' follows. Or
    // somebody has answered 'clientError' without closing it; but nothing more may be read from it.
    if (nodeListeners === null || !socket.listeners('error').includes(nodeListeners.error)) {
      socket.destroy()
      return
    }
    const listeners = this.listeners ??= this.interpose(nodeListeners)
    socket.removeListener('error', nodeListeners.error)
    socket.on('error', listeners.error)
    // Node pauses a connection whose earlier responses are congested, and keeps its 'drain' listener for them. This request is
    // the last that the parser reads before the connection is returned. Reading goes on, up to the first bytes that nobody
    // wants, so that a client that leaves is noticed.
    if (isCongested(socket)) {
      clearCongested(socket)
      resumeParser(this.parser)
      startReading(socket)
    }
    if (claim.mayWrite) this.suspendNode(claim)
    else claim.whenMayWrite(() => { if (this.claim === claim) this.suspendNode(claim) })
    this.unread(restOf(buffer, parsed))
    claim.taken = true
    claim.borrower.onTaken()
  }

  /**
   * Suspends what Node does for requests that it reads itself. Not before the claimed request is in turn: until then Node's
   * timeout applies, and the connection ends with the client's side, as earlier requests expect.
   */
  private suspendNode (claim: Claim): void {
    const { socket } = this
    claim.inTurn = true
    if (socket.timeout) setSocketTimeout(socket, 0)
    // The socket of a TLS server would end its own side with the client's, and be destroyed when all is decrypted, although
    // much of that may still be held for a reader.
    this.halfOpen = socket.allowHalfOpen
    socket.allowHalfOpen = true
    setAutoDestroy(socket, false)
  }

  /** Replaces Node's listeners, but for errors. The first for 'data' makes Node stop feeding the parser from the handle. */
  private interpose (nodeListeners: Listeners): Listeners {
    const { socket } = this
    const listeners: Listeners = {
      // Data is decoded in place, which other listeners must not see.
      data: (data: Buffer) => { this.receive(asLanded(socket.listenerCount('data') > 1 ? copyOf(data) : data)) },
      end: () => {
        this.ended = true
        // As Node does: the responses that are due are not sent any more.
        if (this.claim !== null && !this.claim.inTurn && !allowsHalfOpen(socket)) socket.end()
        else if (!this.pumpsLater) this.pump()
      },
      timeout: () => {
        if (this.claim === null || !this.claim.inTurn) nodeListeners.timeout.call(socket)
        // Deferred: Fastify's timeout listener fails on a request that has ended.
        else process.nextTick(() => this.claim?.borrower.onTimeout())
      },
      error: (error: Error) => { this.error = error }
    }
    swapListeners(socket, nodeListeners, listeners)
    socket.on('resume', this.onResume)
    this.buffers.open((data) => {
      if (this.isForStream) return socket.push(copyForUser(data))
      this.receive(data)
      return !this.stopped
    })
    return listeners
  }

  /** Use the socket's own buffer if others listen, if our listeners are off, if it holds data, or if Node has paused it. */
  private get isForStream (): boolean {
    const { socket } = this
    return this.listeners === null || socket.listenerCount('data') > 1 || socket.readableLength > 0 || (socket.isPaused() && !this.stopped)
  }

  /** Node resumes the socket at the end of each message, and when its responses have drained. */
  private readonly onResume = (): void => {
    if (this.stopped) stopReading(this.socket)
    else if (this.held.length === 0 && !this.ended) return
    if (this.isWanted) this.pumpLater()
  }

  /** Returns the connection: the parser reads the next request. Only after the response has finished. */
  giveBack (): void {
    const { socket, parser, listeners, nodeListeners, claim } = this
    this.claim = null
    if (socket.destroyed) return
    assert(claim !== null && claim.taken && claim.inTurn && listeners !== null && nodeListeners !== null)
    const { keepAliveTimeout, timeout } = serverOf(socket)
    wakeParser(parser)
    socket.allowHalfOpen = this.halfOpen
    setAutoDestroy(socket, true)
    if (!(keepAliveTimeout > 0)) setSocketTimeout(socket, timeout)
    socket.removeListener('error', listeners.error)
    socket.on('error', nodeListeners.error)
    if (this.held.length > 0 || this.stopped) this.pumpLater()
  }

  /** Takes our listeners off, for good. What is read then waits for other listeners. */
  release (): void {
    const { socket, listeners } = this
    this.claim = null
    this.held = NO_BYTES
    this.stopped = false
    for (const event in listeners) socket.removeListener(event, listeners[event as keyof Listeners])
    this.listeners = null
    socket.removeListener('resume', this.onResume)
    this.buffers.leave()
    setAutoDestroy(socket, true)
    resetFlow(socket)
  }

  /** Node takes its own listeners off, and leaves the connection to the listener of 'upgrade'. */
  private leaveToUpgrade (): void {
    if (this.listeners === null) return
    swapListeners(this.socket, this.listeners, this.nodeListeners!)
    this.listeners = null
    this.socket.removeListener('resume', this.onResume)
    this.buffers.leave()
    if (this.ended) repeatEnd(this.socket)
  }
}

/**
 * Emits 'end' again for a new user of the socket, and closes it if our side has ended before, as the stream would have done.
 */
export function repeatEnd (socket: Socket): void {
  process.nextTick(() => {
    socket.emit('end')
    if (socket.writableFinished) socket.destroy()
  })
}

function join (first: Buffer, second: Buffer): Buffer {
  if (first.length === 0) return second
  return second.length === 0 ? first : Buffer.concat([first, second])
}
