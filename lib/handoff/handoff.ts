// Borrowing a connection from Node's server for one exchange, and returning it. Node's parser, listeners and bookkeeping stay
// with the connection; only its bytes are borrowed. When the exchange ends, 'finish' is emitted on the ServerResponse, although
// nothing was written through it. Node and Fastify then do what they do after any response.

import assert from 'node:assert'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { leaveServer } from '../node/parser.ts'
import { clearLast, expectsContinue, finishResponse, isInTurn, isLastAllowed, keepAliveField, onTurn, setContinued, setHeadSent, takeHeadBack } from '../node/response.ts'
import { skipReadable } from '../node/streams.ts'
import { emitTimeout, restartHandle, setSocketTimeout } from '../node/socket.ts'
import { abandonWrites, asLanded, copyForUser } from '../relay/read-buffers.ts'
import { shouldClose } from '../transfer/connection-field.ts'
import type { Borrower, Claim } from './claim.ts'
import { type Connection, repeatEnd, routingConnection } from './connection.ts'

/**
 * Claims the connection of a request that is being routed. Node's 'request' event must still be on the call stack.
 *
 * @returns null if it is not, or if the connection does not belong to a watched HTTP/1 server. Node then reads the body.
 */
export function claim (request: IncomingMessage, borrower: Borrower): Handoff | null {
  const connection = routingConnection(request)
  if (connection === null || connection.response === null) return null
  const handoff = new Handoff(connection, request, connection.response, borrower)
  connection.claim = handoff
  return handoff
}

/** A connection that is borrowed for one request: until `returnToNode`, or for good with `release` or `detach`. */
export class Handoff implements Claim {
  readonly socket: Socket
  readonly borrower: Borrower
  /** Whether the request and the server allow another request after this one (RFC 9112 section 9.3). */
  readonly requestPersists: boolean
  isTaken = false
  wantsData = false
  nodeIsSuspended = false
  private readonly connection: Connection
  private readonly response: ServerResponse
  private responseHasEnded = false // well or with an error

  constructor (connection: Connection, request: IncomingMessage, response: ServerResponse, borrower: Borrower) {
    this.connection = connection
    this.socket = connection.socket
    this.response = response
    this.borrower = borrower
    // llhttp overlooks "close" beside "keep-alive" in HTTP/1.0.
    this.requestPersists = connection.shouldKeepAlive && !isLastAllowed(response) && !shouldClose(request.httpVersionMinor, request.headers.connection)
    skipReadable(request) // Node ends it when the parser stops
    // Before Node's own listener. That one would close the connection if Node had computed so, without knowing of the exchange.
    response.prependListener('finish', this.onFinish)
  }

  get unreadRequest (): IncomingMessage | null {
    return this.borrower.requestIsRead ? null : this.response.req
  }

  // Reading

  /** Starts or resumes reading. Held bytes are passed on within this call. */
  read (): void {
    this.wantsData = true
    this.connection.pump()
  }

  /** Stops reading at once. */
  pause (): void {
    this.wantsData = false
    this.connection.pauseReading()
  }

  /** Puts `rest` back, for the next request or a new user of the connection, and passes nothing more on to the borrower. */
  stopBefore (rest: Buffer): void {
    this.wantsData = false
    this.connection.unshift(rest)
  }

  get clientHasEnded (): boolean {
    return this.connection.clientHasEnded
  }

  /** Whether the client has ended its side, and nothing is left to read. */
  get isHalfClosed (): boolean {
    return this.connection.clientHasEnded && !this.holdsData
  }

  /** Whether bytes were received that nobody has wanted yet. */
  get holdsData (): boolean {
    return this.connection.held.length > 0
  }

  // Writing

  get mayWrite (): boolean {
    return isInTurn(this.response)
  }

  whenMayWrite (callback: () => void): void {
    onTurn(this.response, callback)
  }

  /** The value of the `Keep-Alive` field that Node would send; undefined if it would send none. */
  get keepAliveField (): string | undefined {
    return keepAliveField(this.response)
  }

  /** Whether the client waits for a 100 before it sends its body (RFC 9110 section 10.1.1), and none was sent. */
  get expectsContinue (): boolean {
    return expectsContinue(this.response)
  }

  /** Records that a 100 is being sent, or that none is needed any more. */
  setContinued (): void {
    setContinued(this.response)
  }

  /** Sets whether Node keeps the connection after an answer of its own. */
  setKeepAlive (kept: boolean): void {
    if (!this.response.headersSent) this.response.shouldKeepAlive = kept
  }

  /** Tells Node and Fastify that the head was written. */
  setHeadSent (head: string): void {
    setHeadSent(this.response, head)
  }

  /** Whether a head was sent, by whomever. */
  get headersSent (): boolean {
    return this.response.headersSent
  }

  /** Undoes `setHeadSent`: nothing was sent. */
  takeHeadBack (): void {
    takeHeadBack(this.response)
  }

  /** Tells the app, as Node does, that the socket's timeout has passed. @returns whether anybody listens */
  emitTimeout (): boolean {
    return emitTimeout(this.socket, this.unreadRequest)
  }

  // Ending

  /** Whether somebody else has ended the ServerResponse. Its 'finish' may not have been emitted yet. */
  get isEndedByOthers (): boolean {
    return this.responseHasEnded || this.response.writableEnded
  }

  /** Ends the exchange for Node and Fastify: log line, onResponse, keepAliveTimeout, the turn of the next response. */
  finish (): void {
    assert(!this.isEndedByOthers)
    this.responseHasEnded = true
    finishResponse(this.response)
  }

  /** Ends the exchange with an error, for Fastify. Node notices when the caller destroys the socket. */
  fail (error: Error): void {
    this.responseHasEnded = true
    if (this.response.listenerCount('error') > 0) this.response.emit('error', error)
  }

  /** Returns the connection: Node's parser reads the next request. The response must have finished. */
  returnToNode (): void {
    assert(this.responseHasEnded)
    this.connection.returnToNode()
  }

  /**
   * Keeps a closing server from destroying the connection, which looks idle once the response has finished. The caller must close
   * it: it cannot be returned any more.
   */
  leaveServer (): void {
    leaveServer(this.connection.parser)
  }

  /** Leaves the connection to the caller for good. The socket keeps a listener that ignores its errors. */
  release (): void {
    this.connection.release()
    this.leaveServer()
    this.socket.on('error', ignore)
  }

  /**
   * Leaves the connection to another protocol for good, without a listener for 'error'.
   *
   * @returns the bytes that were received behind the request
   */
  detach (): Buffer {
    const { socket, connection: { held, clientHasEnded } } = this
    this.connection.release()
    abandonWrites(socket)
    setSocketTimeout(socket, 0)
    this.leaveServer()
    restartHandle(socket)
    if (clientHasEnded) repeatEnd(socket)
    return copyForUser(asLanded(held))
  }

  private readonly onFinish = (): void => {
    if (this.responseHasEnded) return
    this.responseHasEnded = true
    this.borrower.onFinish()
    const promisedToPersist = !clearLast(this.response)
    // After all other listeners: Node's own one detaches the response from the socket.
    process.nextTick(() => this.borrower.onAnswered(promisedToPersist))
  }
}

function ignore (): void {}
