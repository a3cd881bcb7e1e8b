// node:http: pipes the request into the response.

import { createServer } from 'node:http'
import { pipeline } from 'node:stream'
import { Counter, Source, parseDownload, serve } from './serve.ts'

serve(createServer((request, response) => {
  const url = request.url!
  response.setHeader('content-type', 'application/octet-stream')
  if (url === '/echo') {
    request.pipe(response)
  } else if (url === '/up') {
    const counter = new Counter()
    pipeline(request, counter, () => response.end(String(counter.size)))
  } else {
    pipeline(new Source(parseDownload(url)), response, () => {})
  }
}))
