// An independent reader to compare with: the parser of Node itself.

import { createServer, type IncomingMessage } from 'node:http'
import { Duplex } from 'node:stream'

interface Read { content: string, trailers: Record<string, string> }

/** What Node's parser makes of a chunked body, in one call stack; null when it refuses it or finds it incomplete. */
export function nodeReads (body: string): Read | null {
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
  for (let piece; (piece = incoming.read()) !== null;) content += piece.toString('latin1')
  socket.destroy()
  return { content, trailers: { ...incoming.trailers } as Record<string, string> }
}
