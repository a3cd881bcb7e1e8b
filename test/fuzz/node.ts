// Node's parser without a connection. It reads the head for the plugin, and whole messages as an oracle.

import { createServer, maxHeaderSize } from 'node:http'
import { Duplex } from 'node:stream'
import { isTunnel } from '../../lib/transfer/tunnel.ts'
import type { Message } from './messages.ts'
import { type Head as ReadHead, type Verdict, accepted, comparable, incomplete, joinFields, refused } from './verdict.ts'

interface Parser {
  initialize (type: number, resource: object, maxHeaderSize: number, lenientFlags: number): void
  execute (bytes: Buffer): number | Error & { code: string }
  finish (): Error & { code: string } | undefined
  [callback: number]: ((...args: any[]) => number | void) | null
}

interface ParserClass {
  new (): Parser
  REQUEST: number
  RESPONSE: number
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

/** The verdict on any message, with what was read of its head. Reads byte by byte, too. */
export function readWholeByNode ({ kind, method, bytes }: Message): Verdict {
  const isResponse = kind === 'response'
  let head: ReadHead = { start: '', fields: {} }
  let raw: string[] = []
  let url = ''
  let content = ''
  let isFinal = false
  let isComplete = false
  let minor = 0
  parser.initialize(isResponse ? HTTPParser.RESPONSE : HTTPParser.REQUEST, {}, maxHeaderSize, 0)
  parser[HTTPParser.kOnHeaders] = (fields: string[], more: string) => {
    raw.push(...fields)
    url += more
  }
  parser[HTTPParser.kOnHeadersComplete] = (major: number, minorVersion: number, fields: string[] | undefined, _method: number, target: string | undefined, status: number, reason: string | undefined) => {
    const start = isResponse ? `${head.start}${status} ${reason ?? ''}\n` : ` ${url}${target ?? ''} HTTP/${major}.${minorVersion}` // Node has its methods by number
    head = { start, fields: comparable(joinFields([...raw, ...(fields ?? [])])) }
    minor = minorVersion
    if (!isResponse && joinFields([...raw, ...(fields ?? [])]).host === undefined) head.host = 'none'
    raw = []
    url = ''
    isFinal = !isResponse || status >= 200 || status === 101
    if (!isResponse) return 0
    return isTunnel(method, status) ? 2 : method === 'HEAD' ? 1 : 0
  }
  parser[HTTPParser.kOnBody] = (bytes: Buffer) => { content += bytes.toString('latin1') }
  parser[HTTPParser.kOnMessageComplete] = () => { isComplete = isFinal }
  const buffer = Buffer.from(bytes, 'latin1')
  let at = 0
  for (; at < buffer.length; at++) {
    if (isComplete) break
    const result = parser.execute(buffer.subarray(at, at + 1))
    // Node's server refuses a request without Host, its parser does not.
    if (head.host === 'none' && minor === 1) return refused('no Host')
    if (typeof result !== 'number') return refused(result.code)
  }
  if (!isComplete) {
    const error = parser.finish()
    if (error !== undefined) return incomplete(error.code)
  }
  // Trailers come as field lines behind the head.
  return isComplete ? accepted(content, joinFields(raw), at, { start: head.start, fields: head.fields }) : incomplete()
}
