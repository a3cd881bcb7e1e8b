// Taking a connection out of Node's hands for one exchange, and giving it back. The ONLY file that knows the insides of
// node:http; the same on Node 20, 22, 24 and 26.
//
// Strategy: put the parser to sleep at the end of the head, and wake it when the exchange is over. Parser, listeners and
// bookkeeping stay with the connection; its bytes are borrowed.
//
//   1. Node's `connection` listener gave the socket a parser. We wrap `parser.onIncoming`, once per connection.
//   2. `onIncoming` emits 'request', Fastify routes, and a duplex route calls `claim(request)`: all in one call stack.
//   3. For a claimed request `onIncoming` returns 2: llhttp takes the message for complete at the end of its head and
//      stops there. What it has not read of its last piece is held for the borrower.
//   4. From the first exchange on, our listeners stand in the place of Node's. They pass on what comes to the borrower, or
//      to Node's while there is none: nothing is put on or taken off between exchanges, but for errors. What nobody wants
//      yet waits here, up to one read, and in the kernel.
//   5. To end the exchange, 'finish' is emitted on the ServerResponse, which was never used: Node and Fastify do what
//      they do after any response. The same parser reads the next request.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { Duplex } from 'node:stream'
import type { Socket } from 'node:net'
import { keepingCloseListeners, makeTargetRoutable } from './fastify-internals.ts'
import { Landing, abandonWrites, copyOf, toHold, toKeep } from './landing.ts'
import { closeWhenEnded, restartReading, startReading, stopReading } from './net-internals.ts'
import { NO_BYTES, restOf } from './transfer/body-reader.ts'
import { asksToClose } from './transfer/head-writer.ts'

type Listener = (...args: any[]) => void

interface Parser {
  constructor: { kOnHeadersComplete: number, kOnMessageComplete: number, kOnExecute: number, prototype: { execute (piece: Buffer): number | Error } }
  [callback: number]: Listener | undefined
  onIncoming: (request: IncomingMessage, shouldKeepAlive: boolean) => number
  maxHeaderPairs: number
  execute?: (piece: Buffer) => number | Error
  getCurrentBuffer (): Buffer
  resume (): void
  remove (): void
}

interface ParsedSocket extends Socket {
  parser: Parser | null
  server: Server & { httpAllowHalfOpen: boolean }
  _httpMessage: ServerResponse | null
  _paused: boolean
  readableFlowing: boolean | null
}

interface Request extends IncomingMessage {
  upgrade: boolean
}

interface Response extends ServerResponse {
  finished: boolean
  maxRequestsOnConnectionReached?: boolean
  _header: string
  _headerSent: boolean
  _keepAliveTimeout: number
  _last: boolean
  _maxRequestsPerSocket: number
  _expect_continue: boolean
  _sent100: boolean
}

/** llhttp's answer to the end of a head: the message has no body, and the parser stops here. */
const STOP_AFTER_HEAD = 2

/** Bytes given to Node's parser in one turn of the event loop: what Node reads at a time by itself. */
const NODE_READ_SIZE = 64 * 1024

/**
 * What takes that answer back, of which llhttp makes an upgrade: up to the end of the next head, it would keep every error
 * to itself.
 */
const WAKE = Buffer.from('GET / HTTP/1.1\r\n\r\n')

// Node's own listeners on a socket, by the names they have in lib/_http_server.js.
const NODE_LISTENERS = { data: 'bound socketOnData', end: 'bound socketOnEnd', timeout: 'socketOnTimeout', error: 'socketOnError' }

type Listeners = Record<keyof typeof NODE_LISTENERS, Listener>

/** What the borrower of a connection is told: each at most once, but for data, and nothing after the connection was given back. */
export interface Borrower {
  /** The parser has stopped: the connection may be read from now on. */
  onTaken (): void
  /** Some bytes, of which may be held what is `toHold`. Only while the borrower reads. */
  onData (piece: Buffer): void
  /** The response was sent by Node, through the ServerResponse; `reusable` is what its head said of the connection. */
  onAnswered (reusable: boolean): void
  /** Nothing was read or written for as long as the socket's timeout. */
  onTimeout (): void
  /** The client has ended its side, behind all that came before. Only while the borrower reads. */
  onEnd (): void
  /** The connection is gone. */
  onClose (error: Error | null): void
}

/** A connection, borrowed for one request. Its bytes belong to the borrower until `giveBack`, or for good after `letGo`. */
export class Handoff {
  readonly socket: ParsedSocket
  readonly request: IncomingMessage
  readonly borrower: Borrower
  /** Whether the request allows another one after it (RFC 9112 section 9.3). */
  readonly persistent: boolean
  taken = false
  reading = false
  /** No response to a request before this one is due any more. */
  inTurn = false
  private readonly connection: Connection
  private readonly response: Response
  private answered = false

  constructor (connection: Connection, request: IncomingMessage, response: Response, borrower: Borrower) {
    this.connection = connection
    this.socket = connection.socket
    this.request = request
    this.response = response
    this.borrower = borrower
    // llhttp overlooks a close beside a keep-alive in HTTP/1.0.
    this.persistent = connection.shouldKeepAlive && response.maxRequestsOnConnectionReached !== true && !asksToClose(request.headers.connection)
    // Before Node's own: the fate of the connection is ours to decide, not that of a `_last` computed without us.
    response.prependListener('finish', this.onFinish)
  }

  /** What the `Keep-Alive` field says in Node's own responses; undefined when it has none. */
  get keepAlive (): string | undefined {
    const { _keepAliveTimeout: timeout, _maxRequestsPerSocket: max } = this.response
    if (!(timeout > 0)) return undefined
    return `timeout=${Math.floor(timeout / 1000)}${max > 0 ? `, max=${max}` : ''}`
  }

  /** Whether the client waits for a 100 before it sends its body (RFC 9110 section 10.1.1), and was not sent one. */
  get expectsContinue (): boolean {
    return this.response._expect_continue && !this.response._sent100
  }

  /** The 100 is being sent, or has become pointless. */
  setContinued (): void {
    this.response._sent100 = true
  }

  /** The client has ended its side, and nothing is left to read. */
  get halfClosed (): boolean {
    return this.connection.ended && this.connection.held.length === 0
  }

  /** Whether the responses to earlier requests on the connection are done, so that this one may be written. */
  get mayWrite (): boolean {
    return this.response.socket !== null
  }

  /** Calls back when `mayWrite` becomes true. */
  whenMayWrite (callback: () => void): void {
    this.response.once('socket', callback)
  }

  /** Whether Node may let the connection live on after an answer of its own. */
  allowKeepAlive (allowed: boolean): void {
    if (!this.response.headersSent) this.response.shouldKeepAlive = allowed && this.persistent
  }

  /** Tells Node, and with it Fastify, that the head has been written. */
  setHead (head: string): void {
    const { response } = this
    response._header = head
    response._headerSent = true
    if (this.mayWrite) return
    // To Node nothing is left to be sent then: an `end` by somebody else would finish the response before its turn, on which
    // Node's assertion fails.
    const { end } = response
    response.end = ((...args: unknown[]) => {
      const endNow = (): void => { (end as Listener).apply(response, args) }
      if (this.inTurn) endNow()
      else this.whenMayWrite(endNow)
      return response
    }) as typeof end
  }

  /** Starts to read, or goes on. What is held already comes within this call. */
  read (): void {
    this.reading = true
    this.connection.pump()
  }

  /** Where what comes has landed. */
  get landing (): Landing {
    return this.connection.landing
  }

  /** Stops reading at once. */
  pause (): void {
    this.reading = false
    this.connection.stop()
  }

  /** Stops reading, before `rest`: that is for the next request, or for who reads on. */
  leaveOff (rest: Buffer): void {
    const { connection } = this
    this.reading = false
    connection.held = join(rest, connection.held)
  }

  /** Ends the exchange for Node and Fastify: logs, onResponse, keepAliveTimeout, the turn of the next response. */
  finish (): void {
    this.answered = true
    this.response.finished = true
    this.response._last = false
    this.response.emit('finish')
  }

  /** Ends the exchange for Fastify with an error; Node learns from the socket, which the caller destroys. */
  fail (error: Error): void {
    this.answered = true
    // The request closes after this, and must find the abort of its signal where it was.
    keepingCloseListeners(this.request, () => {
      if (this.response.listenerCount('error') > 0) this.response.emit('error', error)
    })
  }

  /** Wakes the parser for the next request. Only after the response has finished. */
  giveBack (): void {
    this.connection.giveBack()
  }

  /** Leaves the connection to the caller, for good. */
  letGo (): void {
    this.connection.release()
    this.socket.on('error', ignore)
  }

  /**
   * Leaves the connection to another protocol, for good; as `letGo`, but nothing is done about errors any more.
   *
   * @returns what came behind the request
   */
  detach (): Buffer {
    const { socket, connection: { held, parser, ended } } = this
    this.connection.release()
    abandonWrites(socket)
    setSocketTimeout(socket, 0)
    // Off the server's list: to Node the connection is idle now, which the server would destroy when it closes.
    parser.remove()
    restartReading(socket)
    if (ended) emitEnd(socket)
    return toKeep(held)
  }

  private readonly onFinish = (): void => {
    if (this.answered) return
    this.answered = true
    const last = this.response._last
    this.response._last = false
    // After all other listeners: Node's own detaches the response.
    process.nextTick(() => this.borrower.onAnswered(!last))
  }
}

/** A connection of a watched server: what comes on it goes to the parser, or to the borrower of the moment. */
class Connection {
  readonly socket: ParsedSocket
  readonly parser: Parser
  readonly landing: Landing
  /** While it is being routed. */
  request: IncomingMessage | null = null
  response: Response | null = null
  shouldKeepAlive = false // as llhttp sees it
  /** Of the request that has the connection, from its claim on. */
  handoff: Handoff | null = null
  /** Nobody has wanted it yet: what is behind a head, or behind a body. */
  held: Buffer = NO_BYTES
  /** The client has ended its side. */
  ended = false
  private parsed: number | Error = 0 // how much of its last piece, by the parser
  private passing = false
  private stopped = false
  private pumpsLater = false
  private endPassed = false // the client's end, to Node
  private error: Error | null = null
  private halfOpen = false
  private nodeListeners: Listeners | null = null
  private listeners: Listeners | null = null // those in their place

  constructor (socket: ParsedSocket, parser: Parser) {
    this.socket = socket
    this.parser = parser
    this.landing = new Landing(socket)
  }

  watch (gate: Gate): void {
    const { socket, parser } = this
    const { kOnExecute, prototype } = parser.constructor
    const nodeOnIncoming = parser.onIncoming
    const nodeOnExecute = parser[kOnExecute]
    makeWakeable(parser)

    parser.onIncoming = (request, shouldKeepAlive) => {
      if ((request as Request).upgrade && !isForUpgradeListener(request, gate)) (request as Request).upgrade = false
      const outer = routing
      routing = this
      this.request = request
      this.shouldKeepAlive = shouldKeepAlive
      try {
        const result = nodeOnIncoming(request, shouldKeepAlive)
        if ((request as Request).upgrade) this.leaveToUpgrade()
        else if (request.method === 'CONNECT' && this.handoff === null) gate.onUnclaimedConnect(request)
        return this.handoff === null ? result : STOP_AFTER_HEAD
      } finally {
        routing = outer
        this.request = this.response = null
      }
    }

    // The fast path, up to the first exchange: the handle feeds the parser by itself, which tells here how far it came.
    // The buffer is a copy, in all supported versions: the memory itself is the parser's.
    parser[kOnExecute] = (result) => {
      nodeOnExecute!(result)
      this.parsed = result
      if (this.isClaimed) this.take(parser.getCurrentBuffer())
    }

    // The plain path: Node's 'data' listener calls execute, as for streams that are no handles.
    const execute = parser.execute = (piece: Buffer) => {
      // Of what we pass on it gets no more than Node would read at a time. The listener gets all of it: behind a head that
      // upgrades, Node gives what the parser has not read to whoever listens to 'upgrade'.
      const share = this.listeners !== null && piece.length > NODE_READ_SIZE ? piece.subarray(0, NODE_READ_SIZE) : piece
      this.parsed = prototype.execute.call(parser, share)
      if (this.isClaimed) this.take(piece)
      else if (share !== piece && this.listeners !== null && typeof this.parsed === 'number') this.held = join(piece.subarray(this.parsed), this.held)
      return this.parsed
    }

    socket.on('close', () => {
      // Parsers are pooled: leave nothing of ours on one, unless it is another connection's by now, as after an upgrade.
      if (parser.execute === execute) delete parser.execute
      const { handoff } = this
      this.handoff = null
      handoff?.borrower.onClose(this.error)
    })
  }

  /** Passes on what is held, and after that what comes, as far as somebody wants it. */
  pump (): void {
    if (this.passing) return
    while (this.isWanted && this.held.length > 0) {
      const { held, handoff } = this
      this.held = NO_BYTES
      this.pass(held)
      // The parser has had its share of this turn.
      if (handoff === null && this.handoff === null && this.held.length > 0) {
        this.pumpLater()
        return
      }
    }
    // Reading starts only when nothing is held: otherwise each exchange would let one more read be added to it.
    if (!this.isWanted || this.held.length > 0) return
    this.start()
    if (!this.ended) return
    if (this.handoff !== null) {
      this.handoff.borrower.onEnd()
    } else if (!this.endPassed) {
      // Node ends its side with the client's; what was held may have been requests, whose answers come first if they can.
      this.endPassed = true
      setImmediate(() => { if (!this.socket.destroyed) this.nodeListeners!.end() })
    }
  }

  /** Passes on what is held in the next turn of the event loop: a client that pipelines must leave room for all others. */
  private pumpLater (): void {
    if (this.pumpsLater) return
    this.pumpsLater = true
    setImmediate(() => {
      this.pumpsLater = false
      this.pump()
    })
  }

  stop (): void {
    if (this.stopped) return
    this.stopped = true
    stopReading(this.socket)
  }

  giveBack (): void {
    const { socket, listeners, nodeListeners } = this
    this.handoff = null
    if (socket.destroyed) return
    this.wake()
    socket.allowHalfOpen = this.halfOpen
    closeWhenEnded(socket, true)
    if (!(socket.server.keepAliveTimeout > 0)) setSocketTimeout(socket, socket.server.timeout)
    socket.removeListener('error', listeners!.error)
    socket.on('error', nodeListeners!.error)
    if (this.held.length > 0 || this.stopped) this.pumpLater()
  }

  /** Node resumes the socket at the end of each message (`readStart`), and when its responses have drained. */
  private readonly onResume = (): void => {
    if (this.stopped) stopReading(this.socket)
    else if (this.held.length === 0 && !this.ended) return
    if (this.isWanted) this.pumpLater()
  }

  /** Takes our listeners off. What comes then waits for others. */
  release (): void {
    const { socket, listeners } = this
    this.handoff = null
    this.held = NO_BYTES
    this.stopped = false
    for (const event in listeners) socket.removeListener(event, listeners[event as keyof Listeners])
    this.listeners = null
    socket.removeListener('resume', this.onResume)
    this.landing.leave()
    closeWhenEnded(socket, true)
    socket.readableFlowing = null
  }

  /** Whether what comes now is for the parser, or a borrower who reads. */
  private get isWanted (): boolean {
    const { socket, handoff } = this
    if (this.listeners === null || socket.destroyed) return false
    // Node pauses a connection whose responses are congested, and its listener for 'data' asserts that it is not paused.
    return handoff === null ? !socket._paused : handoff.reading
  }

  /** Whether the parser has just stopped behind the head of a claimed request. */
  private get isClaimed (): boolean {
    return this.handoff !== null && !this.handoff.taken && typeof this.parsed === 'number'
  }

  private start (): void {
    if (!this.stopped) return
    this.stopped = false
    startReading(this.socket)
  }

  private pass (piece: Buffer): void {
    this.passing = true
    try {
      if (this.handoff === null) this.nodeListeners!.data(toHold(piece))
      else this.handoff.borrower.onData(piece)
    } finally {
      this.passing = false
    }
  }

  /** Takes the connection for the claimed request; `piece` is the last of the parser's. */
  private take (piece: Buffer): void {
    const { socket } = this
    const nodeListeners = this.nodeListeners ??= findListeners(socket)
    // A connection that failed while earlier requests of the same piece were read is being destroyed: 'close' follows.
    // Or somebody has answered 'clientError' and not closed it; but nothing more may be read from it.
    if (nodeListeners === null || !socket.listeners('error').includes(nodeListeners.error)) {
      socket.destroy()
      return
    }
    const listeners = this.listeners ??= this.interpose(nodeListeners)
    socket.removeListener('error', nodeListeners.error)
    socket.on('error', listeners.error)
    // Node pauses a connection whose earlier responses are congested (its 'drain' listener stays, for their sake). This
    // request is the last the parser will read before the connection is given back; reading goes on, up to the first
    // bytes that nobody wants, to notice when the client leaves.
    if (socket._paused) {
      socket._paused = false
      this.parser.resume()
      startReading(socket)
    }
    const handoff = this.handoff!
    if (handoff.mayWrite) this.suspendNode(handoff)
    else handoff.whenMayWrite(() => { if (this.handoff === handoff) this.suspendNode(handoff) })
    this.held = join(restOf(piece, this.parsed as number), this.held)
    handoff.taken = true
    handoff.borrower.onTaken()
  }

  /**
   * Suspends what Node does for requests it reads itself. Not before it is the turn of the claimed one: until then the
   * connection is that of earlier requests, with Node's timeout, and its end when the client has left.
   */
  private suspendNode (handoff: Handoff): void {
    const { socket } = this
    handoff.inTurn = true
    if (socket.timeout) setSocketTimeout(socket, 0)
    // The socket of a TLS server would end its own side with the client's. And it ends when all is decrypted, however much
    // of that is still held: who has ended his own side before may yet want to read it.
    this.halfOpen = socket.allowHalfOpen
    socket.allowHalfOpen = true
    closeWhenEnded(socket, false)
  }

  /** Puts our listeners in the place of Node's, but for errors. The first for 'data' makes Node unconsume the handle. */
  private interpose (nodeListeners: Listeners): Listeners {
    const { socket } = this
    const listeners: Listeners = {
      // Others who listen must not see it decoded in place.
      data: (piece: Buffer) => { this.receive(socket.listenerCount('data') > 1 ? copyOf(piece) : piece) },
      end: () => {
        this.ended = true
        // As Node does: the responses that are due are not sent any more.
        if (this.handoff !== null && !this.handoff.inTurn && !socket.server.httpAllowHalfOpen) socket.end()
        else if (!this.pumpsLater) this.pump()
      },
      timeout: () => {
        if (this.handoff === null || !this.handoff.inTurn) nodeListeners.timeout.call(socket)
        // After Fastify's listener, which does not bear that the request is over.
        else process.nextTick(() => this.handoff?.borrower.onTimeout())
      },
      error: (error: Error) => { this.error = error }
    }
    swapListeners(socket, nodeListeners, listeners)
    socket.on('resume', this.onResume)
    this.landing.open((piece) => {
      if (this.isForStream) return socket.push(toKeep(piece))
      this.receive(piece)
      return !this.stopped
    })
    return listeners
  }

  /**
   * Whether a piece must go the long way, through the socket's own buffer: where others listen, where they are the only
   * ones, behind what is there already, or when Node has paused it, and of TLS more comes that was decrypted before.
   */
  private get isForStream (): boolean {
    const { socket } = this
    return this.listeners === null || socket.listenerCount('data') > 1 || socket.readableLength > 0 || (socket.isPaused() && !this.stopped)
  }

  private receive (piece: Buffer): void {
    if (this.passing || this.held.length > 0 || !this.isWanted) {
      this.held = join(this.held, toHold(piece))
      this.stop()
    } else if (this.handoff === null && piece.length > NODE_READ_SIZE) {
      this.held = toHold(piece)
      this.stop()
      this.pump()
    } else {
      this.pass(piece)
      if (this.held.length > 0) this.pump()
    }
  }

  /** Node takes its own listeners off, and leaves the connection to who listens to 'upgrade'. */
  private leaveToUpgrade (): void {
    if (this.listeners === null) return
    swapListeners(this.socket, this.listeners, this.nodeListeners!)
    this.listeners = null
    this.socket.removeListener('resume', this.onResume)
    this.landing.leave()
    if (this.ended) emitEnd(this.socket)
  }

  /** The parser is to read the next request as after any other. */
  private wake (): void {
    const { parser } = this
    waking = true
    parser.constructor.prototype.execute.call(parser, WAKE)
    waking = false
  }
}

/** Some parser is being woken: what it reads then is no request of a client. */
let waking = false

const wakeable = new WeakSet<Parser>()

/**
 * Lets a parser be woken unnoticed by Node. Once in its life, for parsers are pooled, and before its connection's first
 * bytes: from Node 26.12 on, a parser that has begun to read does not see that its callbacks are replaced.
 */
function makeWakeable (parser: Parser): void {
  if (wakeable.has(parser)) return
  wakeable.add(parser)
  const { kOnHeadersComplete, kOnMessageComplete } = parser.constructor
  for (const name of [kOnHeadersComplete, kOnMessageComplete]) {
    const callback = parser[name]!
    parser[name] = function (...args: unknown[]) { return waking ? 0 : callback.apply(this, args) }
  }
}

function join (first: Buffer, second: Buffer): Buffer {
  if (first.length === 0) return second
  return second.length === 0 ? first : Buffer.concat([first, second])
}

/** For who comes to the socket after its 'end'; which, if the other side had ended before, was to close it. */
function emitEnd (socket: Socket): void {
  process.nextTick(() => {
    socket.emit('end')
    if (socket.writableFinished) socket.destroy()
  })
}

/** All but those for errors. */
function swapListeners (socket: ParsedSocket, off: Listeners, on: Listeners): void {
  for (const event of ['data', 'end', 'timeout'] as const) {
    socket.removeListener(event, off[event])
    socket.on(event, on[event])
  }
}

/** Streams that are no sockets have no timeout. */
function setSocketTimeout (socket: Socket, milliseconds: number): void {
  if (typeof socket.setTimeout === 'function') socket.setTimeout(milliseconds)
}

/** Closes when all that was written has left. */
export function closeSoon (socket: Socket): void {
  if (typeof socket.destroySoon === 'function') socket.destroySoon()
  else socket.end(() => socket.destroy())
}

/** The connection whose request is being routed in the current call stack, if any. */
let routing: Connection | null = null

function routingOf (request: IncomingMessage): Connection | null {
  return routing?.request === request ? routing : null
}

/**
 * Claims the connection of a request that is being routed. Node's 'request' event must still be on the call stack.
 *
 * @returns null when it is not, or the connection is none of a watched HTTP/1 server: then Node reads the body
 */
export function claim (request: IncomingMessage, borrower: Borrower): Handoff | null {
  const connection = routingOf(request)
  if (connection === null || connection.response === null) return null
  connection.handoff = new Handoff(connection, request, connection.response, borrower)
  return connection.handoff
}

/**
 * How many field lines Node keeps of a head, if this one may have had more: the others are dropped unseen (on Node 20 and
 * 25; later ones refuse it), but llhttp has read them, framing included. Null when all are there.
 */
export function fieldLimitReached ({ httpVersionMajor, socket, rawHeaders }: IncomingMessage): number | null {
  if (httpVersionMajor > 1) return null
  const { maxHeaderPairs = 0 } = (socket as Partial<ParsedSocket>).parser ?? {} // twice the number: a name and a value each
  return maxHeaderPairs > 0 && rawHeaders.length >= maxHeaderPairs ? maxHeaderPairs / 2 : null
}

/** What else than ordinary requests an app has routes for. */
export interface Gate {
  connect: boolean
  /**
   * A CONNECT request was routed, and nobody has claimed it: a 404. What follows its head must not be read as a request: the
   * client may have meant it for the tunnel, or for a body, which such a request has not. Its connection can be claimed
   * within the call.
   */
  onUnclaimedConnect (request: IncomingMessage): void
}

/** Lets the requests of a server be claimed. */
export function watch (server: Server, gate: Gate): void {
  const watchConnection = (socket: Duplex): void => {
    const { parser, server: owner } = socket as ParsedSocket
    // Another server may have the connection, which this one only accepts: its requests are not seen here.
    if (parser && owner === server) new Connection(socket as ParsedSocket, parser).watch(gate)
  }
  // Both, for a TLS server emits 'connection' too, for the socket below. Node's own listeners ran before.
  server.on('connection', watchConnection)
  server.on('secureConnection', watchConnection)
  server.prependListener('request', noteResponse)
  server.on('checkContinue', onCheckContinue)
}

/** Routes the CONNECT requests of HTTP/2, which Node would answer with 405. */
export function routeStreams (server: Server): void {
  server.on('connect', (request: Http2ServerRequest, response) => {
    // Only those of RFC 8441 have a path.
    request.url ??= request.authority
    makeTargetRoutable(request as unknown as IncomingMessage)
    server.emit('request', request, response)
  })
}

function noteResponse (request: IncomingMessage, response: ServerResponse): void {
  const connection = routingOf(request)
  if (connection === null) return
  connection.response = response as Response
  if (request.method !== 'CONNECT') return
  response.shouldKeepAlive = false // unless it is claimed: see `onUnclaimedConnect`
  makeTargetRoutable(request)
}

/**
 * Whether an `Upgrade` request should go to the listener of another: WebSocket should, for @fastify/websocket listens to
 * 'upgrade'. With a listener there, Node would hand it every other protocol too, and no route would see it. CONNECT never
 * is routed by Node, and here only where there is a route for it.
 */
function isForUpgradeListener (request: IncomingMessage, gate: Gate): boolean {
  return request.method === 'CONNECT' ? !gate.connect : /(?:^|[,\s])websocket(?:$|[,/\s])/i.test(request.headers.upgrade!)
}

/**
 * Node sends the 100 itself, before 'request', unless somebody listens to 'checkContinue'. On a duplex route it must wait
 * for the first read, so that a rejection saves the upload; on any other it goes out as before: ahead of the response.
 */
function onCheckContinue (this: Server, request: IncomingMessage, response: ServerResponse): void {
  // The app's own listener answers or emits 'request', as it would without us.
  if (this.listenerCount('checkContinue') > 1) return
  const { writeHead } = response
  const goOn = (): void => {
    response.writeHead = writeHead
    if (!routingOf(request)?.handoff) response.writeContinue()
  }
  // An answer given while the request is routed must not overtake the 100.
  response.writeHead = ((...args: Parameters<typeof writeHead>) => {
    goOn()
    return response.writeHead(...args)
  }) as typeof writeHead
  this.emit('request', request, response)
  if (response.writeHead !== writeHead) goOn()
}

function findListeners (socket: ParsedSocket): Listeners | null {
  const found: Partial<Listeners> = {}
  for (const event of ['data', 'end', 'timeout', 'error'] as const) {
    const listener = socket.listeners(event).find((listener) => listener.name === NODE_LISTENERS[event])
    if (listener === undefined) return null
    found[event] = listener as Listener
  }
  return found as Listeners
}

let missing: string | null | undefined

/**
 * Tries the hand-off once, on a connection in memory.
 *
 * @returns what this Node lacks; null when connections can be taken
 */
export function missingFromNode (): string | null {
  if (missing === undefined) {
    const socket = new Duplex({ write (_piece, _encoding, done) { done() } })
    missing = tryToTake(socket as ParsedSocket)
    socket.destroy()
  }
  return missing
}

function tryToTake (socket: ParsedSocket): string | null {
  try {
    let handoff = null as Handoff | null
    let rest = ''
    let requests = 0
    let refused = false
    const onData = (piece: Buffer): void => { rest += piece }
    const server = createServer((request) => {
      requests++
      handoff = claim(request, { onData, onTaken: ignore, onAnswered: ignore, onTimeout: ignore, onEnd: ignore, onClose: ignore })
    })
    server.on('clientError', () => { refused = true })
    watch(server, { connect: false, onUnclaimedConnect: ignore })
    server.emit('connection', socket)
    const { parser } = socket
    const { kOnHeadersComplete, kOnMessageComplete, kOnExecute } = parser?.constructor ?? {} as Partial<Parser['constructor']>
    if ([kOnHeadersComplete, kOnMessageComplete, kOnExecute].some((name) => typeof name !== 'number')) return 'parser'
    // This makes the handle stop feeding the parser.
    if (findListeners(socket) === null || socket.on.name !== 'socketListenerWrap') return 'listeners'
    socket.emit('data', Buffer.from('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nrest'))
    handoff?.read()
    if (rest !== 'rest') return 'end of the head'
    const goOnWith = (content: string): void => {
      handoff!.finish()
      handoff!.giveBack()
      socket.emit('data', Buffer.from(content))
    }
    goOnWith('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    if (requests === 2) goOnWith('nonsense')
    return refused ? null : 'request after an exchange'
  } catch (error) {
    return String(error)
  }
}

function ignore (): void {}
