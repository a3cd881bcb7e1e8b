// Four duplex routes, one conversation with the first to watch, and then a server to play with.
// `npm start`, or `PORT=8080 npm start`; Ctrl-C ends it.

import { request as httpRequest } from 'node:http'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { pipeline } from 'node:stream/promises'
import { StringDecoder } from 'node:string_decoder'
import Fastify, { type FastifyInstance, type RouteHandlerMethod } from 'fastify'
import duplex from 'fastify-duplex'

const MAX_ROW_LENGTH = 64 * 1024
const row = {
  type: 'object',
  required: ['name', 'amount'],
  properties: { name: { type: 'string', minLength: 1 }, amount: { type: 'number' } }
}

async function routes (app: FastifyInstance): Promise<void> {
  // `curl -T` sends PUT.
  const duplexRoute = (url: string, handler: RouteHandlerMethod): unknown => {
    return app.route({ method: ['POST', 'PUT'], url, duplex: true, handler })
  }

  // What comes in goes out, while it comes in.
  duplexRoute('/echo', async (request, reply) => {
    reply.type(request.headers['content-type'] ?? 'application/octet-stream')
    await pipeline(reply.duplex, reply.duplex)
  })

  // A generator: each piece is answered as soon as it is yielded.
  duplexRoute('/upper', async function * (request, reply) {
    reply.type('text/plain; charset=utf-8')
    const decoder = new StringDecoder()
    for await (const piece of reply.duplex) yield decoder.write(piece).toUpperCase()
  })

  // Two sources for one response: the time once a second, and each piece of the request as it arrives.
  duplexRoute('/clock', async (request, reply) => {
    reply.type('text/plain; charset=utf-8')
    const stream = reply.duplex
    const timer = setInterval(() => stream.write(`${time()}\n`), 1000)
    try {
      for await (const piece of stream) stream.write(`${time()} > ${String(piece).trimEnd()}\n`)
      stream.end('bye\n')
    } finally {
      clearInterval(timer)
    }
  })

  // A bulk import: NDJSON rows up, one result line per row down at once, the sums as trailers.
  duplexRoute('/import', async function * (request, reply) {
    reply.type('application/x-ndjson')
    const isRow = request.compileValidationSchema(row)
    let imported = 0
    let refused = 0
    let number = 0
    for await (const line of lines(reply.duplex)) {
      if (line.trim() === '') continue
      number++
      const error = check(line, isRow)
      if (error === null) imported++
      else refused++
      yield JSON.stringify(error === null ? { row: number, ok: true } : { row: number, ok: false, error }) + '\n'
    }
    reply.duplex.setTrailers({ 'x-imported': imported, 'x-refused': refused })
  })
}

function check (line: string, isRow: ((value: unknown) => unknown) & { errors?: unknown[] | null }): string | null {
  try {
    if (isRow(JSON.parse(line))) return null
    const [error] = isRow.errors as { instancePath: string, message: string }[]
    return `${error.instancePath} ${error.message}`.trim()
  } catch (error) {
    return (error as Error).message
  }
}

async function * lines (stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new StringDecoder()
  let rest = ''
  for await (const piece of stream) {
    const found = (rest + decoder.write(piece)).split('\n')
    rest = found.pop()!
    if (rest.length > MAX_ROW_LENGTH) throw Object.assign(new Error('Row too long'), { statusCode: 413 })
    yield * found
  }
  yield rest
}

function time (): string {
  return new Date().toISOString().slice(11, 23)
}

/** Says a few words to /upper, one after the other, and shows when each went up and came down. */
async function converse (port: number): Promise<void> {
  console.log('One request, one response, both open at once (POST /upper):\n')
  const request = httpRequest({ port, method: 'POST', path: '/upper' })
  request.flushHeaders()
  let response
  for (const word of ['one', 'two', 'three']) {
    console.log(`  ${time()}  up    ${word}`)
    request.write(word)
    response ??= (await once(request, 'response'))[0]
    const [piece] = await once(response, 'data')
    console.log(`  ${time()}  down  ${piece}`)
    await sleep(300)
  }
  request.end()
  await once(response, 'end')
  console.log(`  ${time()}  end of both\n`)
}

async function main (): Promise<void> {
  const app = Fastify({ logger: { level: 'warn' } })
  await app.register(duplex) // before the routes
  await app.register(routes)

  const address = await app.listen({ port: Number(process.env.PORT ?? 3000), host: '127.0.0.1' })
  await converse(Number(new URL(address).port))
  console.log(`Listening on ${address}. Try:

  (printf one; sleep 1; printf two) | curl -sN -T . ${address}/echo
  (while sleep 1; do date; done) | curl -sN -T . ${address}/upper
  curl -sN -T . ${address}/clock          # type; Ctrl-D ends
  printf '{"name":"a","amount":1}\\n{"name":"b"}\\n' | curl -sN -T . ${address}/import

Ctrl-C to stop.`)

  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
}

main()
