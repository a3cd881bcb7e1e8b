// The handler of the peers whose API is that of fetch: Bun and Deno.

import { Readable } from 'node:stream'
import { Source, parseDownload } from './serve.ts'

const BYTES = { headers: { 'content-type': 'application/octet-stream' } }

export async function answer (request: Request): Promise<Response> {
  const path = request.url.slice(request.url.indexOf('/', 'http://'.length))
  if (path === '/echo') return new Response(request.body, BYTES)
  if (path === '/up') return new Response(String(await count(request.body)))
  return new Response(Readable.toWeb(new Source(parseDownload(path))) as ReadableStream, BYTES)
}

async function count (body: ReadableStream<Uint8Array> | null): Promise<number> {
  let size = 0
  if (body !== null) for await (const chunk of body) size += chunk.length
  return size
}
