// Borrowing a connection from Node's server for one exchange, and returning it. Node's parser, listeners and bookkeeping stay
// with the connection; only its bytes are borrowed. When the exchange ends, 'finish' is emitted on the ServerResponse, which
// was never used: Node and Fastify do what they do after any response.

import assert from 'node:assert'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { leaveServer } from '../node/parser.ts'
import { expectsContinue, finishResponse, isInTurn, isLastAllowed, keepAliveField, onTurn, setContinued, setHeadSent, takeLast } from '../node/response.ts'
import { restartHandle, setSocketTimeout } from '../node/socket.ts'
import { abandonWrites, asLanded, copyForUser } from '../relay/read-buffers.ts'
import { asksToClose } from '../transfer/head-writer.ts'
import type { Borrower, Claim } from './claim.ts'
import { type Connection, repeatEnd, routingConnection } from './connection.ts'

/**
 * Claims the connection of a request that is being routed. Node's 'request' event must still be on the call stack.
 *
 * @returns null when it is not, or when the connection is not one of a watched HTTP/1 server: then Node reads the body
 */
export function claim (request: IncomingMessage, borrower: Borrower): Handoff | null {
  const connection = routingConnection(request)
  if (connection === null || connection.response === null) return null
  const handoff = new Handoff(connection, request, connection.response, borrower)
  connection.claim = handoff
  return handoff
}

/** A connection borrowed for one request. Its bytes are the borrower's until `giveBack`, or for good after `release`. */
export class Handoff implements Claim {
  readonly socket: Socket
  readonly request: IncomingMessage
  readonly borrower: Borrower
  /** Whether the request allows another one after it (RFC 9112 section 9.3). */
  readonly persistent: boolean
  taken = false
  reading = false
  inTurn = false
  private readonly connection: Connection
  private readonly response: ServerResponse
  private answered = false

  constructor (connection: Connection, request: IncomingMessage, response: ServerResponse, borrower: Borrower) {
    this.connection = connection
    this.socket = connection.socket
    this.request = request
    this.response = response
    this.borrower = borrower
    // llhttp overlooks "close" beside "keep-alive" in HTTP/1.0.
    this.persistent = connection.shouldKeepAlive && !isLastAllowed(response) && !asksToClose(request.headers.connection)
    // Before Node's own listener, which would close the connection by a `_last` that was computed without us.
    response.prependListener('finish', this.onFinish)
  }

  // Reading

  /** Starts reading, or goes on. What is held is passed on within this call. */
  read (): void {
    this.reading = true
    this.connection.pump()
  }

  /** Stops reading at once. */
  pause (): void {
    this.reading = false
    this.connection.stop()
  }

  /** Stops reading in front of `rest`, which is for the next request or for a new user of the connection. */
  stopBefore (rest: Buffer): void {
    this.reading = false
    this.connection.unread(rest)
  }

  /** Whether the client has ended its side, and nothing is left to read. */
  get halfClosed (): boolean {
    return this.connection.ended && this.connection.held.length === 0
  }

  // Writing

  /** Whether the responses to earlier requests are complete, so that this one may be written. */
  get mayWrite (): boolean {
    return isInTurn(this.response)
  }

  /** Calls back when `mayWrite` becomes true. */
  whenMayWrite (callback: () => void): void {
    onTurn(this.response, callback)
  }

  /** The value of the `Keep-Alive` field in Node's own responses; undefined when they have none. */
  get keepAlive (): string | undefined {
    return keepAliveField(this.response)
  }

  /** Whether the client waits for a 100 before it sends its body, and none was sent. */
  get expectsContinue (): boolean {
    return expectsContinue(this.response)
  }

  /** The 100 is being sent, or no longer needed. */
  setContinued (): void {
    setContinued(this.response)
  }

  /** Sets whether Node keeps the connection after an answer of its own. */
  setKeepAlive (kept: boolean): void {
    if (!this.response.headersSent) this.response.shouldKeepAlive = kept
  }

  /** Tells Node and Fastify that the head was written. */
  setHead (head: string): void {
    setHeadSent(this.response, head)
  }

  // Ending

  /** Ends the exchange for Node and Fastify: logs, onResponse, keepAliveTimeout, the turn of the next response. */
  finish (): void {
    assert(!this.answered)
    this.answered = true
    finishResponse(this.response)
  }

  /** Ends the exchange for Fastify with an error. Node learns of it from the socket, which the caller destroys. */
  fail (error: Error): void {
    this.answered = true
    if (this.response.listenerCount('error') > 0) this.response.emit('error', error)
  }

  /** Wakes the parser for the next request. Only after the response has finished. */
  giveBack (): void {
    assert(this.answered)
    this.connection.giveBack()
  }

  /** Leaves the connection to the caller, for good. Errors of the socket are ignored from now on. */
  release (): void {
    this.connection.release()
    this.socket.on('error', ignore)
  }

  /**
   * Leaves the connection to another protocol, for good, and its errors as well.
   *
   * @returns the bytes that were received behind the request
   */
  detach (): Buffer {
    const { socket, connection: { held, parser, ended } } = this
    this.connection.release()
    abandonWrites(socket)
    setSocketTimeout(socket, 0)
    leaveServer(parser)
    restartHandle(socket)
    if (ended) repeatEnd(socket)
    return copyForUser(asLanded(held))
  }

  private readonly onFinish = (): void => {
    if (this.answered) return
    this.answered = true
    const last = takeLast(this.response)
    // After all other listeners: Node's own detaches the response.
    process.nextTick(() => this.borrower.onAnswered(!last))
  }
}

function ignore (): void {}
