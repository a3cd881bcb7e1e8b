// Taking a connection out of Node's hands for one exchange, and giving it back. The ONLY file that knows the insides of
// node:http; the same on Node 20, 22, 24 and 26.
//
// Strategy: put the parser to sleep at the end of the head, and wake it when the exchange is over. Parser, listeners and
// bookkeeping stay with the connection; its bytes are borrowed.
//
//   1. Node's `connection` listener gave the socket a parser. We wrap `parser.onIncoming`, once per connection.
//   2. `onIncoming` emits 'request', Fastify routes, and a duplex route calls `claim(request)`: all in one call stack.
//   3. For a claimed request `onIncoming` returns 2: llhttp takes the message for complete at the end of its head and
//      stops there. What `execute` has not read of the current piece is put back into the socket.
//   4. Node's listeners come off the socket. Until somebody reads, bytes wait in it and in the kernel.
//   5. To end the exchange, 'finish' is emitted on the ServerResponse, which was never used: Node and Fastify do what
//      they do after any response. The listeners go back on, and the same parser reads the next request.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { Duplex } from 'node:stream'
import { Socket } from 'node:net'
import { keepingCloseListeners } from './fastify-internals.ts'
import { asksToClose } from './transfer/head-writer.ts'

type Listener = (...args: any[]) => void

interface Parser {
  constructor: { kOnExecute: number, prototype: { execute (piece: Buffer): number | Error } }
  [callback: number]: (result: number | Error) => void
  onIncoming: (request: IncomingMessage, shouldKeepAlive: boolean) => number
  execute?: (piece: Buffer) => number | Error
  getCurrentBuffer (): Buffer
  resume (): void
  remove (): void
  consume (handle: object): void
  unconsume (): void
  _consumed: boolean
}

interface ParsedSocket extends Socket {
  parser: Parser | null
  server: Server
  _httpMessage: ServerResponse | null
  _paused: boolean
  _handle: { isStreamBase: boolean, reading: boolean, readStart (): void, readStop (): void } | null
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

// Node's own listeners on a socket, by the names they have in lib/_http_server.js; the last two only while the parser
// feeds itself from the handle.
const NODE_LISTENERS = { data: 'bound socketOnData', end: 'bound socketOnEnd', error: 'socketOnError', timeout: 'socketOnTimeout' }
const FEEDING_LISTENERS = { pause: 'onSocketPause', resume: 'onSocketResume' }

/** What is remembered of a connection from one exchange to the next. */
interface Connection {
  readonly socket: ParsedSocket
  readonly parser: Parser
  /** Found at the first exchange. */
  nodeListeners: Record<string, Listener> | null
  feedingListeners: Record<string, Listener> | null
  /** Claimed while the parser runs; its connection is taken when that stops. */
  taking: Handoff | null
}

/** What the borrower of a connection is told. Each comes at most once, and none after the connection was given back. */
export interface Borrower {
  /** The parser has stopped: the socket may be read from now on. */
  onTaken (): void
  /** The response was sent by Node, through the ServerResponse; `reusable` is what its head said of the connection. */
  onAnswered (reusable: boolean): void
  /** Nothing was read or written for as long as the socket's timeout. */
  onTimeout (): void
  /** The client has ended its side. */
  onEnd (): void
  /** The connection is gone. */
  onClose (error: Error | null): void
}

/** A connection, borrowed for one request. Its bytes belong to the borrower until `giveBack`, or for good after `letGo`. */
export class Handoff {
  readonly socket: ParsedSocket
  readonly request: IncomingMessage
  /** Whether the request allows another one after it (RFC 9112 section 9.3). */
  readonly persistent: boolean
  taken = false
  private readonly connection: Connection
  private readonly response: Response
  private readonly borrower: Borrower
  private halfOpen = false
  private ended = false
  private answered = false
  private error: Error | null = null

  constructor (connection: Connection, request: IncomingMessage, response: Response, borrower: Borrower) {
    const { socket } = connection
    this.connection = connection
    this.socket = socket
    this.request = request
    this.response = response
    this.borrower = borrower
    // llhttp overlooks a close beside a keep-alive in HTTP/1.0.
    this.persistent = response.shouldKeepAlive && response.maxRequestsOnConnectionReached !== true && !asksToClose(request.headers.connection)
    // Before Node's own: the fate of the connection is ours to decide, not that of a `_last` computed without us.
    response.prependListener('finish', this.onFinish)
    socket.on('close', this.onClose)
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
    return this.ended
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
    this.response._header = head
    this.response._headerSent = true
  }

  /** The parser has stopped; `rest` is what it left of its last piece. */
  take (rest: Buffer): void {
    const { socket, connection } = this
    const { parser } = connection
    connection.nodeListeners ??= findListeners(socket, NODE_LISTENERS)
    // A connection that failed while earlier requests of the same piece were read is being destroyed: 'close' follows.
    if (connection.nodeListeners === null || !socket.listeners('error').includes(connection.nodeListeners.error)) return
    if (parser._consumed) {
      parser.unconsume()
      parser._consumed = false
      connection.feedingListeners ??= findListeners(socket, FEEDING_LISTENERS)
      removeListeners(socket, connection.feedingListeners)
    }
    // Node pauses a connection whose earlier responses are congested (its 'drain' listener stays, for their sake); this
    // request is the last the parser will read before the connection is given back.
    if (socket._paused) {
      socket._paused = false
      parser.resume()
    }
    removeListeners(socket, connection.nodeListeners)
    socket.on('end', this.onEnd)
    socket.on('error', this.onError)
    socket.on('timeout', this.onTimeout)
    // The socket of a TLS server would end its own side with the client's.
    this.halfOpen = socket.allowHalfOpen
    socket.allowHalfOpen = true
    // Neither flowing nor paused: bytes stay where they are. After pause() the handle was seen to stay unread.
    socket.readableFlowing = null
    if (rest.length > 0) socket.unshift(rest)
    this.taken = true
    this.borrower.onTaken()
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
    const { socket } = this
    const { parser, nodeListeners, feedingListeners } = this.connection
    this.leave()
    socket.allowHalfOpen = this.halfOpen
    if (!(socket.server.keepAliveTimeout > 0)) setIdleTimeout(socket, socket.server.timeout)
    addListeners(socket, nodeListeners!)
    // As on a new connection: saves a Buffer and an event per read. What the socket holds already must come by 'data'.
    if (feedingListeners !== null && socket._handle !== null && socket.readableLength === 0) {
      addListeners(socket, feedingListeners)
      parser.consume(socket._handle)
      parser._consumed = true
    }
    startReading(socket)
  }

  private leave (): void {
    const { socket } = this
    socket.removeListener('end', this.onEnd)
    socket.removeListener('error', this.onError)
    socket.removeListener('timeout', this.onTimeout)
    socket.removeListener('close', this.onClose)
  }

  /** Leaves the connection to the caller, for good. */
  letGo (): void {
    this.leave()
    this.socket.on('error', ignore)
  }

  /** Leaves the connection to another protocol, for good; as `letGo`, but nothing is done about errors any more. */
  detach (): void {
    const { socket } = this
    this.leave()
    setIdleTimeout(socket, 0)
    // Off the server's list: to Node the connection is idle now, which the server would destroy when it closes.
    this.connection.parser.remove()
    restartReading(socket)
  }

  private readonly onFinish = (): void => {
    if (this.answered) return
    this.answered = true
    const last = this.response._last
    this.response._last = false
    // After all other listeners: Node's own detaches the response.
    process.nextTick(() => this.borrower.onAnswered(!last))
  }

  private readonly onEnd = (): void => {
    this.ended = true
    this.borrower.onEnd()
  }

  private readonly onError = (error: Error): void => {
    this.error = error
  }

  private readonly onTimeout = (): void => {
    this.borrower.onTimeout()
  }

  private readonly onClose = (): void => {
    this.letGo()
    this.borrower.onClose(this.error)
  }
}

/** Streams that are no sockets have no timeout. */
export function setIdleTimeout (socket: Socket, milliseconds: number): void {
  if (typeof socket.setTimeout === 'function') socket.setTimeout(milliseconds)
}

/** Closes when all that was written has left. */
export function closeSoon (socket: Socket): void {
  if (typeof socket.destroySoon === 'function') socket.destroySoon()
  else socket.end(() => socket.destroy())
}

/**
 * Stops reading at once. socket.pause() alone would fill the socket's own buffer first, and what is still decrypted of
 * one read of TLS would start the next.
 */
export function stopReading (socket: Duplex): void {
  socket.pause()
  const { _handle: handle } = socket as ParsedSocket
  if (!handle) return
  socket._read = ignore
  handle.reading = false
  handle.readStop()
}

/** Reads on after `stopReading`, which socket.resume() alone does not when a read was under way. */
export function startReading (socket: Duplex): void {
  restartReading(socket)
  socket.resume()
}

function restartReading (socket: Duplex): void {
  const { _handle: handle } = socket as ParsedSocket
  if (!handle) return
  socket._read = Socket.prototype._read
  handle.reading = true
  handle.readStart()
}

interface Arrival {
  readonly connection: Connection
  readonly request: IncomingMessage
  response: Response | null
  handoff: Handoff | null
}

/** The request that is being routed in the current call stack, if any. */
let arrival: Arrival | null = null

/**
 * Claims the connection of a request that is being routed. Node's 'request' event must still be on the call stack.
 *
 * @returns null when it is not, or the connection is none of a watched HTTP/1 server: then Node reads the body
 */
export function claim (request: IncomingMessage, borrower: Borrower): Handoff | null {
  if (arrival === null || arrival.request !== request || arrival.response === null) return null
  arrival.handoff = new Handoff(arrival.connection, request, arrival.response, borrower)
  return arrival.handoff
}

/** What else than ordinary requests an app has routes for. */
export interface Gate {
  connect: boolean
}

/** Lets the requests of a server be claimed. */
export function watch (server: Server, gate: Gate): void {
  const watchConnection = (socket: Duplex): void => {
    const { parser } = socket as ParsedSocket
    if (parser) watchParser(socket as ParsedSocket, parser, gate)
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
    server.emit('request', request, response)
  })
}

function watchParser (socket: ParsedSocket, parser: Parser, gate: Gate): void {
  const { kOnExecute, prototype } = parser.constructor
  const nodeOnIncoming = parser.onIncoming
  const nodeOnExecute = parser[kOnExecute]
  const connection: Connection = { socket, parser, nodeListeners: null, feedingListeners: null, taking: null }

  parser.onIncoming = (request, shouldKeepAlive) => {
    if ((request as Request).upgrade && !isForUpgradeListener(request, gate)) (request as Request).upgrade = false
    const outer = arrival
    const inner: Arrival = arrival = { connection, request, response: null, handoff: null }
    let result
    try {
      result = nodeOnIncoming(request, shouldKeepAlive)
    } finally {
      arrival = outer
    }
    if (inner.handoff === null) return result
    connection.taking = inner.handoff
    return STOP_AFTER_HEAD
  }

  // The fast path: the handle feeds the parser by itself, which tells here how far it came. The buffer is a copy, in all
  // supported versions: the memory itself is the parser's.
  parser[kOnExecute] = (result) => {
    nodeOnExecute(result)
    if (connection.taking !== null) take(connection, result, () => parser.getCurrentBuffer())
  }

  // The plain path: Node's 'data' listener calls execute. That is so for streams that are no handles, and where bytes
  // are already in the socket.
  const execute = parser.execute = (piece: Buffer) => {
    const result = prototype.execute.call(parser, piece)
    if (connection.taking !== null) take(connection, result, () => piece)
    return result
  }
  // Parsers are pooled: leave nothing of ours on one, unless it is another connection's by now, as after an upgrade.
  socket.on('close', () => { if (parser.execute === execute) delete parser.execute })
}

/** The parser has stopped, after `result` bytes of its last piece. */
function take (connection: Connection, result: number | Error, piece: () => Buffer): void {
  const handoff = connection.taking!
  connection.taking = null
  if (typeof result === 'number') handoff.take(piece().subarray(result))
}

function noteResponse (request: IncomingMessage, response: ServerResponse): void {
  if (arrival?.request === request) arrival.response = response as Response
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
    if (arrival?.request !== request || arrival.handoff === null) response.writeContinue()
  }
  // An answer given while the request is routed must not overtake the 100.
  response.writeHead = ((...args: Parameters<typeof writeHead>) => {
    goOn()
    return response.writeHead(...args)
  }) as typeof writeHead
  this.emit('request', request, response)
  if (response.writeHead !== writeHead) goOn()
}

function findListeners (socket: ParsedSocket, names: Record<string, string>): Record<string, Listener> | null {
  const found: Record<string, Listener> = {}
  for (const event in names) {
    const listener = socket.listeners(event).find((listener) => listener.name === names[event])
    if (listener === undefined) return null
    found[event] = listener as Listener
  }
  return found
}

function removeListeners (socket: ParsedSocket, listeners: Record<string, Listener> | null): void {
  for (const event in listeners) socket.removeListener(event, listeners[event])
}

function addListeners (socket: ParsedSocket, listeners: Record<string, Listener>): void {
  for (const event in listeners) socket.on(event, listeners[event])
}

let missing: string | null | undefined

/**
 * Tries the hand-off once, on a connection in memory.
 *
 * @returns what this Node lacks; null when connections can be taken
 */
export function missingFromNode (): string | null {
  if (missing === undefined) {
    const socket = new Duplex({ read () {}, write (_piece, _encoding, done) { done() } })
    missing = tryToTake(socket as ParsedSocket)
    socket.destroy()
  }
  return missing
}

function tryToTake (socket: ParsedSocket): string | null {
  try {
    const server = createServer((request) => {
      claim(request, { onTaken: ignore, onAnswered: ignore, onTimeout: ignore, onEnd: ignore, onClose: ignore })
    })
    watch(server, { connect: false })
    server.emit('connection', socket)
    const { parser } = socket
    if (typeof parser?.constructor.kOnExecute !== 'number' || typeof parser.consume !== 'function' || typeof parser.unconsume !== 'function') return 'parser'
    if (findListeners(socket, NODE_LISTENERS) === null) return 'listeners'
    socket.emit('data', Buffer.from('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nrest'))
    return String(socket.read()) === 'rest' ? null : 'end of the head'
  } catch (error) {
    return String(error)
  }
}

function ignore (): void {}
