// Node's HTTP parser, llhttp behind `socket.parser`: how its callbacks are wrapped, put to sleep at the end of a head and
// woken again. The names are those of lib/_http_common.js and lib/_http_server.js, the same on Node 20 to 26.

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

/** Returned from `onHead`: llhttp takes the message for one without a body, and stops behind its head. */
export const STOP_AFTER_HEAD = 2

/** What stands in the place of the parser's callbacks on one connection. */
export interface ParserHooks {
  /**
   * A head has been read.
   *
   * @param next Node's own callback, which emits 'request'
   * @returns what llhttp is told: what `next` returns, or `STOP_AFTER_HEAD`
   */
  onHead (request: IncomingMessage, shouldKeepAlive: boolean, next: HeadCallback): number
  /**
   * The fast path, before anybody listens to the socket's 'data': the handle has fed the parser by itself.
   *
   * @param parsed how many bytes of `bufferOf` the parser has read, or its error
   */
  onExecuted (parsed: number | Error): void
  /** The plain path: Node's 'data' listener feeds the parser. Calls `parse` with as much of `buffer` as it wants read. */
  execute (buffer: Buffer): number | Error
}

/** The parser that Node's connection listener has given to a socket; null when there is none. */
export function parserOf (socket: Duplex): Parser | null {
  return (socket as { parser?: Parser | null }).parser ?? null
}

/**
 * Wraps the callbacks of a connection's parser. Must be called before the first bytes arrive.
 *
 * @returns a function to call when the connection has closed. Parsers are pooled: nothing of one connection may stay on a
 *   parser, unless it is another connection's by now, as after an upgrade.
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

/** Feeds a parser. */
export function parse (parser: Parser, buffer: Buffer): number | Error {
  return parser.constructor.prototype.execute.call(parser, buffer)
}

/** What the handle has fed to the parser. A copy, in all supported versions: the memory itself is the parser's. */
export function bufferOf (parser: Parser): Buffer {
  return parser.getCurrentBuffer()
}

/** Lets the parser read on, after Node has paused it. */
export function resumeParser (parser: Parser): void {
  parser.resume()
}

/** Takes the connection off the server's list, on which it looks idle: a closing server destroys idle connections. */
export function leaveServer (parser: Parser): void {
  parser.remove()
}

/** A dummy request that takes llhttp out of upgrade mode, in which it would swallow all errors up to the end of the next head. */
const WAKE = Buffer.from('GET / HTTP/1.1\r\n\r\n')

/** Some parser is reading `WAKE`: its callbacks must not reach Node. */
let waking = false

const wakeable = new WeakSet<Parser>()

/**
 * Lets a parser read `WAKE` unnoticed by Node. Done once per parser, since parsers are pooled, and before it reads: from
 * Node 26.12 on, a parser that has begun to read keeps the callbacks it began with.
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

/** Wakes a parser that has stopped after a head, so that it reads the next request like any other. */
export function wakeParser (parser: Parser): void {
  waking = true
  parse(parser, WAKE)
  waking = false
}

/** Whether the numbered callbacks that this file replaces exist. */
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

/** Has Node route a request that offers to upgrade. */
export function routeUpgrade (request: IncomingMessage): void {
  (request as UpgradeRequest).upgrade = false
}

/**
 * The number of field lines that Node keeps of a head, if this head reaches it. Node 20 and 25 drop the lines beyond it
 * without a word, though llhttp has acted on them, framing included; later versions refuse such a head.
 *
 * @returns null when all field lines are there
 */
export function fieldLimitReached ({ httpVersionMajor, socket, rawHeaders }: IncomingMessage): number | null {
  if (httpVersionMajor > 1) return null
  const { maxHeaderPairs = 0 } = parserOf(socket) ?? {} // twice the number: a name and a value for each line
  return maxHeaderPairs > 0 && rawHeaders.length >= maxHeaderPairs ? maxHeaderPairs / 2 : null
}
