// Node's parser, by itself: the head for us, and the whole message as an oracle.

import { createServer, maxHeaderSize } from 'node:http'
import { Duplex } from 'node:stream'
import { type Verdict, accepted, incomplete, joined, refused } from './verdict.ts'

interface Parser {
  initialize (type: number, resource: object, maxHeaderSize: number, lenientFlags: number): void
  execute (piece: Buffer): number | Error & { code: string }
  [callback: number]: ((...args: any[]) => number | void) | null
}

interface ParserClass {
  new (): Parser
  REQUEST: number
  kOnHeaders: number
  kOnHeadersComplete: number
  kOnBody: number
  kOnMessageComplete: number
}

/** The class is Node's own; a connection has one of it. */
const HTTPParser = ((): ParserClass => {
  const socket = new Duplex({ read () {}, write (_piece, _encoding, done) { done() } })
  createServer().emit('connection', socket)
  const { parser } = socket as Duplex & { parser: { constructor: ParserClass } }
  socket.destroy()
  return parser.constructor
})()

export interface Head {
  minorVersion: number
  rawHeaders: string[]
  shouldKeepAlive: boolean
  end: number
}

const parser = new HTTPParser()

/** The head, if it is one that a server takes, and the verdict. Byte by byte: that tells where the message ends. */
export function nodeReads (bytes: Buffer): { head: Head | null, verdict: Verdict } {
  const read = { head: null as Head | null, content: '', complete: false, raw: [] as string[], at: 0 }
  parser.initialize(HTTPParser.REQUEST, {}, maxHeaderSize, 0)
  parser[HTTPParser.kOnHeaders] = (fields: string[]) => { read.raw.push(...fields) }
  parser[HTTPParser.kOnHeadersComplete] = (_major: number, minorVersion: number, fields: string[] | undefined, _method: number, _url: string, _status: number, _reason: string, _upgrade: boolean, shouldKeepAlive: boolean) => {
    read.head = { minorVersion, rawHeaders: [...read.raw.splice(0), ...(fields ?? [])], shouldKeepAlive, end: read.at + 1 }
    return 0
  }
  parser[HTTPParser.kOnBody] = (piece: Buffer) => { read.content += piece.toString('latin1') }
  parser[HTTPParser.kOnMessageComplete] = () => { read.complete = true }
  for (; read.at < bytes.length && !read.complete; read.at++) {
    const result = parser.execute(bytes.subarray(read.at, read.at + 1))
    if (read.head !== null && isWithoutHost(read.head)) return { head: null, verdict: refused('no Host') }
    if (typeof result !== 'number') return { head: read.head, verdict: refused(result.code) }
  }
  return { head: read.head, verdict: read.complete ? accepted(read.content, joined(read.raw), read.at) : incomplete() }
}

/** Not the parser's to refuse, but the server's. */
function isWithoutHost ({ minorVersion, rawHeaders }: Head): boolean {
  return minorVersion === 1 && joined(rawHeaders).host === undefined
}
