// Independent readers of chunked bodies to compare with: Node's parser, and the grammar of the RFCs.

import { createServer, type IncomingMessage } from 'node:http'
import { Duplex } from 'node:stream'

export interface OracleRead {
  content: string
  trailers: Record<string, string>
}

/** A chunked body as Node's parser reads it, synchronously. Null if it is refused or incomplete. */
export function nodeReads (body: string): OracleRead | null {
  const server = createServer()
  const socket = new Duplex({ read () {}, write (_piece, _encoding, done) { done() } })
  let request: IncomingMessage | null = null
  let failed = false
  server.on('request', (incoming) => { request = incoming })
  server.on('clientError', () => { failed = true })
  server.emit('connection', socket)
  socket.emit('data', Buffer.from('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n' + body, 'latin1'))
  const incoming = request as IncomingMessage | null
  if (failed || incoming === null || !incoming.complete) return null
  let content = ''
  for (let chunk; (chunk = incoming.read()) !== null;) content += chunk.toString('latin1')
  socket.destroy()
  return { content, trailers: { ...incoming.trailers } as Record<string, string> }
}

// RFC 9110 section 5.6 and RFC 9112 section 7.1, rule by rule.
const OWS = '[ \\t]*'
const TOKEN = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+"
const QUOTED_STRING = '"(?:[\\t \\x21\\x23-\\x5b\\x5d-\\x7e\\x80-\\xff]|\\\\[\\t \\x21-\\x7e\\x80-\\xff])*"'
const CHUNK_EXT = `(?:${OWS};${OWS}${TOKEN}(?:${OWS}=${OWS}(?:${TOKEN}|${QUOTED_STRING}))?)*`
const CHUNK_HEAD = `([0-9A-Fa-f]{1,16})${CHUNK_EXT}\\r\\n`
const FIELD_LINE = `(${TOKEN}):${OWS}([\\t\\x20-\\x7e\\x80-\\xff]*?)${OWS}\\r\\n`

/** A chunked body as the grammar reads it, with its size. Null if it is invalid or incomplete. */
export function grammarReads (bytes: string): OracleRead & { size: number } | null {
  const chunkHead = new RegExp(CHUNK_HEAD, 'y')
  const fieldLine = new RegExp(FIELD_LINE, 'y')
  const trailers: Record<string, string> = Object.create(null)
  let content = ''
  let at = 0
  while (true) {
    chunkHead.lastIndex = at
    const match = chunkHead.exec(bytes)
    if (match === null) return null
    at = chunkHead.lastIndex
    const size = parseInt(match[1], 16)
    if (size === 0) break
    content += bytes.slice(at, at + size)
    at += size + 2
    if (bytes.slice(at - 2, at) !== '\r\n') return null
  }
  while (true) {
    fieldLine.lastIndex = at
    const match = fieldLine.exec(bytes)
    if (match === null) break
    at = fieldLine.lastIndex
    const name = match[1].toLowerCase()
    trailers[name] = trailers[name] === undefined ? match[2] : `${trailers[name]}, ${match[2]}`
  }
  return bytes.slice(at, at + 2) === '\r\n' ? { content, trailers: { ...trailers }, size: at + 2 } : null
}
