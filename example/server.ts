// A server with three duplex routes, those of import.ts and agent.ts, and a page that shows what they do. It first shows a
// conversation with itself, and then waits for your requests. `npm start`, or `PORT=8080 npm start`. Ctrl-C stops it.

import { request as httpRequest } from 'node:http'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { pipeline } from 'node:stream/promises'
import type { FastifyInstance, RouteHandlerMethod } from 'fastify'
import { agent } from './agent.ts'
import { bulkImport } from './import.ts'
import { listen } from './listen.ts'
import { page } from './page.ts'

export async function routes (app: FastifyInstance): Promise<void> {
  // `curl -T` sends PUT.
  const duplexRoute = (url: string, handler: RouteHandlerMethod): unknown => {
    return app.route({ method: ['POST', 'PUT'], url, duplex: true, handler })
  }

  // The request body is sent back while it arrives.
  duplexRoute('/echo', async (request, reply) => {
    reply.type(request.headers['content-type'] ?? 'application/octet-stream')
    await pipeline(reply.duplex, reply.duplex)
  })

  // A generator: each chunk is sent as soon as it is yielded.
  duplexRoute('/upper', async function * (request, reply) {
    reply.type('text/plain; charset=utf-8')
    reply.duplex.setEncoding('utf8') // a character may be cut between two chunks
    for await (const text of reply.duplex) yield text.toUpperCase()
  })

  // Two sources for one response: the time once a second, and each chunk of the request as it arrives.
  duplexRoute('/clock', async (request, reply) => {
    reply.type('text/plain; charset=utf-8')
    const stream = reply.duplex.setEncoding('utf8')
    const timer = setInterval(() => stream.writableNeedDrain || stream.write(`${time()}\n`), 1000)
    try {
      for await (const text of stream) {
        if (!stream.write(`${time()} > ${text.trimEnd()}\n`)) await once(stream, 'drain')
      }
      stream.end('bye\n')
    } finally {
      clearInterval(timer)
    }
  })
}

function time (): string {
  return new Date().toISOString().slice(11, 23)
}

/** Sends a few words to /upper, one after the other, and shows when each was sent and when its answer arrived. */
async function converse (port: number): Promise<void> {
  console.log('One request and one response, both open at the same time (POST /upper):\n')
  const request = httpRequest({ port, method: 'POST', path: '/upper' })
  request.flushHeaders()
  let response
  for (const word of ['one', 'two', 'three']) {
    console.log(`  ${time()}  up    ${word}`)
    request.write(word)
    response ??= (await once(request, 'response'))[0]
    const [chunk] = await once(response, 'data')
    console.log(`  ${time()}  down  ${chunk}`)
    await sleep(300)
  }
  request.end()
  await once(response, 'end')
  console.log(`  ${time()}  end of both\n`)
}

/** Everything that `npm start` serves. */
export async function demo (app: FastifyInstance): Promise<void> {
  await app.register(routes)
  await app.register(bulkImport, { save: async () => {} })
  await app.register(agent, { record: () => {} })
  await app.register(page)
}

async function main (): Promise<void> {
  const address = await listen(demo)
  await converse(Number(new URL(address).port))
  console.log(`Listening. Open ${address}/ in a browser, or try:

  (for word in one two three; do echo $word; sleep 1; done) | curl -sSN -T . ${address}/upper
  (echo '{"name":"a","amount":1}'; sleep 1; echo '{"name":"b"}') | curl -sSN -T . -H content-type:application/jsonl ${address}/import
  curl -sSN -T . ${address}/clock          # type some lines; Ctrl-D ends the request

Ctrl-C to stop.`)
}

if (require.main === module) main()
