// A connection of a watched server. Its bytes go to Node's parser, or to the borrower of the connection if there is one.
//
//   1. Node's connection listener has given the socket a parser. We hook the parser, once per connection.
//   2. The parser reads a head, and Node emits 'request'. Fastify routes the request, and a duplex route claims it. All of
//      this happens in one call stack.
//   3. For a claimed request the parser stops behind the head. The rest of its input is held for the borrower.
//   4. From the first exchange on, our listeners replace Node's. They pass bytes on to the borrower, or to Node's listeners
//      while there is no borrower. Only the listener for 'error' changes with each exchange. Bytes that nobody wants yet wait
//      in the kernel, except for at most one read, which waits here.
//   5. After the exchange the parser is woken. It reads the next request.
//
// One class, since in every step the same few fields decide where the next byte goes.

import assert from 'node:assert'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type Listeners, findListeners, swapListeners } from '../node/listeners.ts'
import { type HeadCallback, type Parser, STOP_AFTER_HEAD, bufferOf, hookParser, isUpgrade, parse, resumeParser, routeUpgrade, wakeParser } from '../node/parser.ts'
import { allowsHalfOpen, clearCongested, emitTimeout, hasServerTimeout, isCongested, serverOf, setSocketTimeout, startReading, stopReading } from '../node/socket.ts'
import { resetFlow, setAutoDestroy } from '../node/streams.ts'
import { type Landed, ReadBuffers, asLanded, copyForUser, copyIfLanded, copyOf } from '../relay/read-buffers.ts'
import { NO_BYTES, restOf } from '../transfer/body-reader.ts'
import type { Claim } from './claim.ts'
import { type Gate, belongsToUpgradeListener } from './gate.ts'

/** Bytes given to Node's parser in one turn of the event loop: the size of Node's own reads. */
const NODE_READ_SIZE = 64 * 1024

/** Bytes that are held for a borrower before reading stops: the buffer that Node has by default. */
const MAX_HELD = 16 * 1024

/** The connection whose request is being routed in the current call stack. */
let routing: Connection | null = null

/** The connection of a request while the request is being routed; otherwise null. */
export function routingConnection (request: IncomingMessage): Connection | null {
  return routing?.request === request ? routing : null
}

export class Connection {
  readonly socket: Socket
  readonly parser: Parser
  // The next three belong to the request that is being routed.
  request: IncomingMessage | null = null
  response: ServerResponse | null = null
  /** What llhttp says about persistence, from the request head alone. */
  shouldKeepAlive = false
  /** From the claim of a request until the connection is returned. */
  claim: Claim | null = null
  /** Received bytes that nobody has wanted yet. They are passed on before anything that is read later. */
  held: Buffer = NO_BYTES
  /** The client has ended its side. */
  clientHasEnded = false
  private readonly gate: Gate
  private readonly buffers: ReadBuffers
  private parsed: number | Error = 0 // bytes of its last input that the parser has read, or the parser's error
  private isPassing = false // bytes are being passed on, in the current call stack
  private isPausedByUs = false
  private pumpIsScheduled = false
  private nodeKnowsEnd = false // Node was told that the client has ended its side
  private error: Error | null = null // of the socket, during an exchange
  private allowedHalfOpen = false // the socket's `allowHalfOpen` before the exchange
  private nodeListeners: Listeners | null = null
  private ourListeners: Listeners | null = null // in place of Node's; null before the first exchange and after `release`

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
    if (this.parserHasStopped) this.take(bufferOf(this.parser))
  }

  execute (buffer: Buffer): number | Error {
    // Our reads are larger than Node's. The parser gets only as much at a time as Node would read. Node's 'data' listener, which
    // calls this method, gets the whole buffer: after the head of an upgrade it gives the rest to the listeners for 'upgrade'.
    const share = this.ourListeners !== null && buffer.length > NODE_READ_SIZE ? buffer.subarray(0, NODE_READ_SIZE) : buffer
    this.parsed = parse(this.parser, share)
    if (this.parserHasStopped) this.take(buffer)
    else if (share !== buffer && this.ourListeners !== null && typeof this.parsed === 'number') this.held = join(buffer.subarray(this.parsed), this.held)
    return this.parsed
  }

  /** Whether the parser has just stopped behind the head of a claimed request. */
  private get parserHasStopped (): boolean {
    return this.claim !== null && !this.claim.isTaken && typeof this.parsed === 'number'
  }

  // Passing bytes on

  /** Passes on what is held, as long as it is wanted. Then resumes reading, if nothing is held. */
  pump (): void {
    if (this.isPassing) return
    while (this.isDataWanted && this.held.length > 0) {
      const { held, claim } = this
      this.held = NO_BYTES
      this.passOn(asLanded(held))
      // The parser has had as much as it may get in one turn of the event loop.
      if (claim === null && this.claim === null && this.held.length > 0) {
        this.schedulePump()
        return
      }
    }
    // Read only when nothing is held. Otherwise each exchange could add one more read to the held bytes.
    if (!this.isDataWanted || this.held.length > 0) return
    this.resumeReading()
    if (!this.clientHasEnded) return
    if (this.claim !== null) {
      this.claim.borrower.onEnd()
    } else if (!this.nodeKnowsEnd) {
      // Node ends its side when it learns of the client's end. The held bytes may have been requests. Deferred, so that their
      // answers can be sent first.
      this.nodeKnowsEnd = true
      setImmediate(() => { if (!this.socket.destroyed) this.nodeListeners!.end() })
    }
  }

  /** Calls `pump` in the next turn of the event loop, so that a client that pipelines leaves room for the others. */
  private schedulePump (): void {
    if (this.pumpIsScheduled) return
    this.pumpIsScheduled = true
    setImmediate(() => {
      this.pumpIsScheduled = false
      this.pump()
    })
  }

  /** Stops reading at once. */
  pauseReading (): void {
    if (this.isPausedByUs) return
    this.isPausedByUs = true
    stopReading(this.socket)
  }

  private resumeReading (): void {
    if (!this.isPausedByUs) return
    this.isPausedByUs = false
    startReading(this.socket)
  }

  /** Puts bytes back in front of those that are held. */
  unshift (bytes: Buffer): void {
    this.held = join(bytes, this.held)
  }

  /** Whether the borrower wants data now, or Node's parser if there is no borrower. */
  private get isDataWanted (): boolean {
    const { socket, claim } = this
    if (this.ourListeners === null || socket.destroyed) return false
    // Node's 'data' listener must not be called while its responses are congested: it asserts that reading is not paused.
    return claim === null ? !isCongested(socket) : claim.wantsData
  }

  private receive (data: Landed): void {
    if (this.isPassing || this.held.length > 0 || !this.isDataWanted) {
      this.held = join(this.held, copyIfLanded(data))
      // Up to a limit, reading goes on: only a connection that is read shows that its client has left.
      if (this.claim === null || this.held.length > MAX_HELD) this.pauseReading()
    } else if (this.claim === null && data.length > NODE_READ_SIZE) {
      this.held = copyIfLanded(data)
      this.pauseReading()
      this.pump()
    } else {
      this.passOn(data)
      if (this.held.length > 0) this.pump()
    }
  }

  private passOn (data: Landed): void {
    this.isPassing = true
    try {
      if (this.claim === null) this.nodeListeners!.data(copyIfLanded(data))
      else this.claim.borrower.onData(data)
    } finally {
      this.isPassing = false
    }
  }

  // Borrowing and returning

  /**
   * Takes the connection for the claimed request.
   *
   * @param buffer the last input of the parser
   */
  private take (buffer: Buffer): void {
    const { socket, claim, parsed } = this
    assert(claim !== null && !claim.isTaken && typeof parsed === 'number')
    const nodeListeners = this.nodeListeners ??= findListeners(socket)
    // The connection may have failed while earlier requests of the same buffer were read. Then Node has removed its listener
    // for 'error'. Usually the connection is being destroyed already, and 'close' follows. If a listener for 'clientError' has
    // left it open, it is destroyed here: nothing more may be read from it.
    if (nodeListeners === null || socket.listenerCount('error', nodeListeners.error) === 0) {
      socket.destroy()
      return
    }
    const listeners = this.ourListeners ??= this.replaceListeners(nodeListeners)
    socket.removeListener('error', nodeListeners.error)
    socket.on('error', listeners.error)
    // Node pauses a connection whose earlier responses are congested, so that no further requests are read. That is not needed
    // here: the parser reads nothing more until the connection is returned. Reading goes on up to the first bytes that nobody
    // wants, so that a client that leaves is noticed. Node's 'drain' listener stays for the earlier responses.
    if (isCongested(socket)) {
      clearCongested(socket)
      resumeParser(this.parser)
      startReading(socket)
    }
    if (claim.mayWrite) this.suspendNode(claim)
    else claim.whenMayWrite(() => { if (this.claim === claim) this.suspendNode(claim) })
    this.unshift(restOf(buffer, parsed))
    claim.isTaken = true
    claim.borrower.onTaken()
  }

  /**
   * Suspends the server's timeout, and Node's way of closing a connection whose client has ended its side. Called when the response
   * may be written. Until then earlier requests, which Node handles, need both.
   */
  private suspendNode (claim: Claim): void {
    const { socket } = this
    claim.nodeIsSuspended = true
    if (hasServerTimeout(socket)) setSocketTimeout(socket, 0)
    // The socket of a TLS server would end its side together with the client's. It would also be destroyed as soon as all data
    // is decrypted, although much of that data may still be held for the borrower.
    this.allowedHalfOpen = socket.allowHalfOpen
    socket.allowHalfOpen = true
    setAutoDestroy(socket, false)
  }

  /**
   * Replaces Node's listeners, except the one for 'error'. The first listener for 'data' makes Node stop feeding the parser
   * directly from the handle.
   *
   * @returns our listeners
   */
  private replaceListeners (nodeListeners: Listeners): Listeners {
    const { socket } = this
    const listeners: Listeners = {
      // The body reader decodes in place. Other listeners must not see that, so they keep the original.
      data: (data: Buffer) => { this.receive(asLanded(socket.listenerCount('data') > 1 ? copyOf(data) : data)) },
      end: () => {
        this.clientHasEnded = true
        // As Node does with `httpAllowHalfOpen: false`: it sends no more responses.
        if (this.claim !== null && !this.claim.nodeIsSuspended && !allowsHalfOpen(socket)) socket.end()
        else if (this.claim?.isTaken && !this.claim.wantsData) this.claim.borrower.onHalfClose()
        else if (!this.pumpIsScheduled) this.pump()
      },
      timeout: () => {
        const { claim } = this
        if (claim === null) nodeListeners.timeout.call(socket)
        // Deferred: Fastify's timeout listener fails on a request that has ended.
        else if (claim.nodeIsSuspended) process.nextTick(() => this.claim?.borrower.onTimeout())
        else if (!emitTimeout(socket, claim.unreadRequest)) socket.destroy()
      },
      error: (error: Error) => { this.error = error }
    }
    swapListeners(socket, nodeListeners, listeners)
    socket.on('resume', this.onResume)
    this.buffers.open((data) => {
      if (this.usesStreamBuffer) return socket.push(copyForUser(data))
      this.receive(data)
      return !this.isPausedByUs
    })
    return listeners
  }

  /**
   * Whether a read goes into the socket's own stream buffer instead of to `receive`: if there are other listeners, if our
   * listeners are off, if that buffer holds data, or if Node has paused the socket.
   */
  private get usesStreamBuffer (): boolean {
    const { socket } = this
    return this.ourListeners === null || socket.listenerCount('data') > 1 || socket.readableLength > 0 || (socket.isPaused() && !this.isPausedByUs)
  }

  /** Node resumes the socket at the end of each message, and when its responses have drained. Undoes this if we have paused. */
  private readonly onResume = (): void => {
    if (this.isPausedByUs) stopReading(this.socket)
    else if (this.held.length === 0 && !this.clientHasEnded) return
    if (this.isDataWanted) this.schedulePump()
  }

  /** Returns the connection to Node: the parser reads the next request. The response must have finished. */
  returnToNode (): void {
    const { socket, parser, ourListeners, nodeListeners, claim } = this
    this.claim = null
    if (socket.destroyed) return
    assert(claim !== null && claim.isTaken && claim.nodeIsSuspended && ourListeners !== null && nodeListeners !== null)
    const { keepAliveTimeout, timeout } = serverOf(socket)
    wakeParser(parser)
    socket.allowHalfOpen = this.allowedHalfOpen
    setAutoDestroy(socket, true)
    if (!(keepAliveTimeout > 0)) setSocketTimeout(socket, timeout)
    socket.removeListener('error', ourListeners.error)
    socket.on('error', nodeListeners.error)
    if (this.held.length > 0 || this.isPausedByUs) this.schedulePump()
  }

  /** Takes our listeners off for good, and drops what is held. Data that is read later waits for other listeners. */
  release (): void {
    const { socket, ourListeners } = this
    this.claim = null
    this.held = NO_BYTES
    this.isPausedByUs = false
    for (const event in ourListeners) socket.removeListener(event, ourListeners[event as keyof Listeners])
    this.ourListeners = null
    socket.removeListener('resume', this.onResume)
    this.buffers.useShared()
    setAutoDestroy(socket, true)
    resetFlow(socket)
  }

  /**
   * Puts Node's listeners back before Node gives the connection to the listener for 'upgrade'. Node takes only its own
   * listeners off.
   */
  private leaveToUpgrade (): void {
    if (this.ourListeners === null) return
    swapListeners(this.socket, this.ourListeners, this.nodeListeners!)
    this.ourListeners = null
    this.socket.removeListener('resume', this.onResume)
    this.buffers.useShared()
    if (this.clientHasEnded) repeatEnd(this.socket)
  }
}

/**
 * Emits 'end' again, for a new user of a socket whose readable side has already ended. Destroys the socket if its writable
 * side has finished too, as the stream would have done.
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
