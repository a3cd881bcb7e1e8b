// Node's HTTP parser, which is llhttp behind `socket.parser`: how its callbacks are wrapped, and how it is stopped at the end of
// a head and woken again. The names are those of lib/_http_common.js and lib/_http_server.js, the same on Node 20 to 26.

import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'

type Callback = (...args: any[]) => any
export type HeadCallback = (request: IncomingMessage, shouldKeepAlive: boolean) => number

export interface Parser {
  constructor: { kOnHeadersComplete: number, kOnMessageComplete: number, kOnExecute: number, prototype: { execute (buffer: Buffer): number | Error } }
  [callback: number]: Callback | undefined
  onIncoming: HeadCallback
  maxHeaderPairs: number
  execute?: (buffer: Buffer) => number | Error
  getCurrentBuffer (): Buffer
  resume (): void
  remove (): void
}

/** A return value of `onHead`: llhttp treats the message as one without a body, and stops behind its head. */
export const STOP_AFTER_HEAD = 2

/** Our callbacks, in place of the parser's. One object per connection. */
export interface ParserHooks {
  /**
   * A head has been read.
   *
   * @param next Node's own callback, which emits 'request'
   * @returns the result for llhttp: that of `next`, or `STOP_AFTER_HEAD`
   */
  onHead (request: IncomingMessage, shouldKeepAlive: boolean, next: HeadCallback): number
  /**
   * The fast path, while the socket has no listener for 'data': the handle feeds the parser directly. Called after each read.
   *
   * @param parsed how many bytes of `bufferOf` the parser has read, or the parser's error
   */
  onExecuted (parsed: number | Error): void
  /**
   * The plain path: Node's 'data' listener feeds the parser. Calls `parse` with `buffer`, or with its first part.
   *
   * @returns how many bytes the parser has read, or the parser's error
   */
  execute (buffer: Buffer): number | Error
}

/** The parser that Node's connection listener has given to a socket; null if there is none. */
export function parserOf (socket: Duplex): Parser | null {
  return (socket as { parser?: Parser | null }).parser ?? null
}

/**
 * Wraps the callbacks of a connection's parser. Must be called before the first bytes arrive.
 *
 * @returns a function to call when the connection has closed. Parsers are pooled, so nothing of one connection may stay on its
 *   parser. The function does nothing if another connection has the parser by then, as after an upgrade.
 */
export function hookParser (parser: Parser, hooks: ParserHooks): () => void {
  const { kOnExecute } = parser.constructor
  const nodeOnIncoming = parser.onIncoming
  const nodeOnExecute = parser[kOnExecute]
  makeWakeable(parser)
  parser.onIncoming = (request, shouldKeepAlive) => hooks.onHead(request, shouldKeepAlive, nodeOnIncoming)
  parser[kOnExecute] = (parsed) => {
    nodeOnExecute!(parsed)
    hooks.onExecuted(parsed)
  }
  const execute = parser.execute = (buffer: Buffer) => hooks.execute(buffer)
  return () => {
    if (parser.execute === execute) delete parser.execute
  }
}

/** Feeds a parser. @returns how many bytes it has read, or its error */
export function parse (parser: Parser, buffer: Buffer): number | Error {
  return parser.constructor.prototype.execute.call(parser, buffer)
}

/** The last buffer that the handle has fed to the parser. All supported Node versions return a copy, which may be kept. */
export function bufferOf (parser: Parser): Buffer {
  return parser.getCurrentBuffer()
}

/** Resumes a parser that Node has paused. */
export function resumeParser (parser: Parser): void {
  parser.resume()
}

/**
 * Takes the connection off the server's list of connections. It would look idle there, and a closing server destroys idle
 * connections. For good: from Node 24 on, the parser reads no further requests.
 */
export function leaveServer (parser: Parser): void {
  parser.remove()
}

/** A dummy request that takes llhttp out of upgrade mode, in which it would swallow all errors up to the end of the next head. */
const WAKE = Buffer.from('GET / HTTP/1.1\r\n\r\n')

/** A parser is reading `WAKE` in the current call stack. Its callbacks must not reach Node. */
let isWaking = false

const wakeable = new WeakSet<Parser>()

/**
 * Prepares a parser so that Node does not notice when it reads `WAKE`. Once per parser, since parsers are pooled. Before the
 * parser reads anything: from Node 26.12 on, a parser keeps the callbacks that it had when it began to read.
 */
function makeWakeable (parser: Parser): void {
  if (wakeable.has(parser)) return
  wakeable.add(parser)
  const { kOnHeadersComplete, kOnMessageComplete } = parser.constructor
  for (const name of [kOnHeadersComplete, kOnMessageComplete]) {
    parser[name] = unlessWaking(parser[name]!)
  }
}

/** How many arguments the callbacks of Node 20 to 26 have at most. */
const MAX_ARGUMENTS = 9

/** Calls a callback unless a parser reads `WAKE`. The parameters have names, because rest parameters took about 2 % of an ordinary request. */
function unlessWaking (callback: Callback): Callback {
  if (callback.length > MAX_ARGUMENTS) return function (this: unknown, ...args) { return isWaking ? 0 : callback.apply(this, args) }
  return function (this: unknown, a, b, c, d, e, f, g, h, i) { return isWaking ? 0 : callback.call(this, a, b, c, d, e, f, g, h, i) }
}

/**
 * Wakes a parser that has stopped after a head, so that it reads the next request like any other. Without callbacks, the parser
 * makes no arguments for them: that is more than half of the time of this call.
 */
export function wakeParser (parser: Parser): void {
  const { kOnHeadersComplete, kOnMessageComplete } = parser.constructor
  const { [kOnHeadersComplete]: onHead, [kOnMessageComplete]: onMessage } = parser
  parser[kOnHeadersComplete] = parser[kOnMessageComplete] = undefined
  isWaking = true
  parse(parser, WAKE)
  isWaking = false
  parser[kOnHeadersComplete] = onHead
  parser[kOnMessageComplete] = onMessage
}

/** Whether the numbered callbacks exist that this file replaces. */
export function hasKnownCallbacks (parser: Parser | null): boolean {
  const { kOnHeadersComplete, kOnMessageComplete, kOnExecute } = parser?.constructor ?? {} as Partial<Parser['constructor']>
  return [kOnHeadersComplete, kOnMessageComplete, kOnExecute].every((name) => typeof name === 'number')
}

interface UpgradeRequest extends IncomingMessage {
  upgrade: boolean
}

/** Whether Node gives this request to the listeners of 'upgrade' or 'connect' instead of routing it. */
export function isUpgrade (request: IncomingMessage): boolean {
  return (request as UpgradeRequest).upgrade
}

/** Makes Node route a CONNECT or Upgrade request like any other. Must be called before Node's own callback of the head. */
export function routeUpgrade (request: IncomingMessage): void {
  (request as UpgradeRequest).upgrade = false
}

/**
 * Node keeps a limited number of field lines of a head of HTTP/1 (`server.maxHeadersCount`). Node 20 and 25 silently drop the lines above
 * this limit, although llhttp has acted on them, for example on the framing fields. Later versions refuse such a head.
 *
 * @returns the limit, if this head reaches it; null if all field lines are there
 */
export function fieldLimitReached ({ socket, rawHeaders }: IncomingMessage): number | null {
  const { maxHeaderPairs = 0 } = parserOf(socket) ?? {} // twice the limit: each line has a name and a value
  return maxHeaderPairs > 0 && rawHeaders.length >= maxHeaderPairs ? maxHeaderPairs / 2 : null
}
