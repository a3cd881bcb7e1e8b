// node:http2 without TLS: pipes each stream into itself.

import { createServer } from 'node:http2'
import { pipeline } from 'node:stream'
import { Counter, Source, parseDownload, serve } from './serve.ts'

const server = createServer()
server.on('stream', (stream, headers) => {
  const url = headers[':path']!
  if (url === '/up') {
    const counter = new Counter()
    pipeline(stream, counter, () => {
      stream.respond({ ':status': 200 })
      stream.end(String(counter.size))
    })
    return
  }
  stream.respond({ ':status': 200, 'content-type': 'application/octet-stream' })
  if (url === '/echo') stream.pipe(stream)
  else pipeline(new Source(parseDownload(url)), stream, () => {})
})
serve(server)
