// Node's parser without a connection. It reads the head for the plugin, and the whole message as an oracle.

import { createServer, maxHeaderSize } from 'node:http'
import { Duplex } from 'node:stream'
import { type Verdict, accepted, incomplete, joinFields, refused } from './verdict.ts'

interface Parser {
  initialize (type: number, resource: object, maxHeaderSize: number, lenientFlags: number): void
  execute (bytes: Buffer): number | Error & { code: string }
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

/** Node does not export its parser class, but the parser of any connection leads to it. */
const HTTPParser = ((): ParserClass => {
  const socket = new Duplex({ read () {}, write (_chunk, _encoding, done) { done() } })
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

/** The head, if a server would accept it, and the verdict. Reads byte by byte, to find out where the message ends. */
export function readByNode (bytes: Buffer): { head: Head | null, verdict: Verdict } {
  const read = { head: null as Head | null, content: '', complete: false, raw: [] as string[], at: 0 }
  parser.initialize(HTTPParser.REQUEST, {}, maxHeaderSize, 0)
  parser[HTTPParser.kOnHeaders] = (fields: string[]) => { read.raw.push(...fields) }
  parser[HTTPParser.kOnHeadersComplete] = (_major: number, minorVersion: number, fields: string[] | undefined, _method: number, _url: string, _status: number, _reason: string, _upgrade: boolean, shouldKeepAlive: boolean) => {
    read.head = { minorVersion, rawHeaders: [...read.raw.splice(0), ...(fields ?? [])], shouldKeepAlive, end: read.at + 1 }
    return 0
  }
  parser[HTTPParser.kOnBody] = (bytes: Buffer) => { read.content += bytes.toString('latin1') }
  parser[HTTPParser.kOnMessageComplete] = () => { read.complete = true }
  for (; read.at < bytes.length && !read.complete; read.at++) {
    const result = parser.execute(bytes.subarray(read.at, read.at + 1))
    if (read.head !== null && lacksHost(read.head)) return { head: null, verdict: refused('no Host') }
    if (typeof result !== 'number') return { head: read.head, verdict: refused(result.code) }
  }
  return { head: read.head, verdict: read.complete ? accepted(read.content, joinFields(read.raw), read.at) : incomplete() }
}

/** Node refuses a request without Host in its server, not in its parser. */
function lacksHost ({ minorVersion, rawHeaders }: Head): boolean {
  return minorVersion === 1 && joinFields(rawHeaders).host === undefined
}
