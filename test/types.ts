// What TypeScript accepts, infers and refuses, through the published entry of the package. Compiled by `npm run types`,
// never run. An expected error that does not occur is an error.

import type { IncomingHttpHeaders } from 'node:http'
import type { Http2SecureServer, Http2Server } from 'node:http2'
import type { Server as HttpsServer } from 'node:https'
import type { Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Type, type TypeBoxTypeProvider, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance, type FastifyPluginAsync, type FastifyReply, type FastifyRequest, type RouteHandlerMethod, type RouteOptions, type RouteShorthandOptions } from 'fastify'
import duplex, { type Authority, type DuplexHandler, type DuplexOptions, type DuplexRouteOptions, type ExchangeState, type ExchangeStatus, type FastifyDuplexOptions, type FramingKind, type HttpDuplex, type InjectedDuplex, type InjectedResponse, type OutgoingFields, type Trailers, fastifyDuplex } from 'fastify-duplex'
import * as transfer from 'fastify-duplex/transfer'
import implementation from '../lib/index.ts'
import * as transferImplementation from '../lib/transfer/index.ts'
import { writeTrailers } from '../lib/transfer/field-lines.ts'
import { bodyReader, requestFraming } from '../lib/transfer/framing.ts'
import { connectTarget } from '../lib/transfer/tunnel.ts'

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false

/** `exactly<string>()(value)` compiles if the type of `value` is string, and not if it is any or a subtype. */
declare function exactly<Expected> (): <Actual>(value: Actual, ...wrong: Same<Expected, Actual> extends true ? [] : [never]) => void

declare const flag: boolean

exactly<string>()('' as string)
// @ts-expect-error any is not accepted
exactly<string>()('' as any)

// The published types are those of lib/.

export const published: typeof fastifyDuplex = implementation
export const publishedTransfer: typeof transfer = transferImplementation
exactly<keyof typeof transfer>()({} as keyof typeof transferImplementation)
exactly<typeof fastifyDuplex>()(duplex)
exactly<typeof fastifyDuplex>()({} as FastifyPluginAsync<FastifyDuplexOptions>)
exactly<Authority | null>()(connectTarget('a:1', false))
exactly<FramingKind>()(requestFraming({}, 1).kind)
exactly<string>()(writeTrailers({} as OutgoingFields))
exactly<Trailers>()(bodyReader(requestFraming({}, 1), { maxTrailerSize: 1, maxChunkExtensionSize: 1 }).trailers)

// Registration.

export async function registration (): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(duplex)
  await app.register(duplex, { idleTimeout: 1, bodyLimit: 2, maxTrailerSize: 3, maxChunkExtensionSize: 4, drainLimit: 5, drainTimeout: 6, closeGrace: 7, maxExchanges: 8, highWaterMark: 9 })
  await app.register(duplex, { minRate: 10, maxAge: 11, incremental: true })
  await app.register(duplex, { prefix: '/a', logLevel: 'warn', logSerializers: { a: String }, idleTimeout: 1 })
  // @ts-expect-error a number
  app.register(duplex, { idleTimeout: '1' })
  // @ts-expect-error a boolean
  app.register(duplex, { incremental: 1 })
  // @ts-expect-error no such option
  app.register(duplex, { idleTimeOut: 1 })
  return app
}

// The servers of Fastify.

const http = Fastify()
const https = Fastify({ https: {} })
const http2 = Fastify({ http2: true })
const http2Secure = Fastify({ http2: true, https: { allowHTTP1: true } })
const logging = Fastify({ logger: { level: 'info', stream: { write (line: string) { JSON.parse(line) } } }, forceCloseConnections: true })
exactly<HttpsServer>()(https.server)
exactly<Http2Server>()(http2.server)
exactly<Http2SecureServer>()(http2Secure.server)

export async function onAll (): Promise<void> {
  await https.register(duplex)
  await http2.register(duplex)
  await http2Secure.register(duplex)
  await https.register(duplex, { idleTimeout: 1 })
  await http2.register(duplex, { idleTimeout: 1 })
  await http2Secure.register(duplex, { idleTimeout: 1 })
  for (const app of [http, logging]) app.post('/', { duplex: true }, async function * (request, reply) { yield * reply.duplex })
  https.post('/', { duplex: true }, async function * (request, reply) { yield * reply.duplex })
  http2.post('/', { duplex: true }, async function * (request, reply) {
    exactly<HttpDuplex>()(reply.duplex)
    request.raw.stream.session?.ping(() => {})
    yield * reply.duplex
  })
  http2Secure.route({ method: 'POST', url: '/', duplex: true, async * handler (request, reply) { yield * reply.duplex } })
  exactly<InjectedDuplex>()(await https.injectDuplex('/'))
  exactly<InjectedDuplex>()(await http2Secure.injectDuplex('/'))
  const apps: FastifyInstance[] = [http, logging, https.post('/', { duplex: true }, async () => {})]
  apps.pop()
}

// The option.

const noHandler = async (): Promise<void> => {}
http.post('/', { duplex: true }, noHandler)
http.post('/', { duplex: false }, noHandler)
http.post('/', { duplex: flag }, noHandler)
http.post('/', { duplex: undefined }, noHandler)
http.post('/', { duplex: {} }, noHandler)
http.post('/', { duplex: { idleTimeout: 0, maxExchanges: 3 } }, noHandler)
http.post('/', { duplex: true, handler: noHandler })
http.route({ method: ['POST', 'PUT'], url: '/', duplex: { bodyLimit: 1 }, handler: noHandler })
http.route({ method: 'POST', url: '/', duplex: flag, handler: noHandler })
const options: DuplexOptions = { highWaterMark: 1 }
http.all('/', { duplex: options, bodyLimit: 1, config: { a: 1 }, constraints: { host: 'a' }, logLevel: 'info' }, noHandler)

// @ts-expect-error neither a boolean nor options
http.post('/', { duplex: 'yes' }, noHandler)
// @ts-expect-error
http.post('/', { duplex: 1 }, noHandler)
// @ts-expect-error
http.post('/', { duplex: [] }, noHandler)
// @ts-expect-error no such option
http.post('/', { duplex: { idleTimeOut: 1 } }, noHandler)
// @ts-expect-error a number
http.post('/', { duplex: { idleTimeout: '1' } }, noHandler)
// @ts-expect-error
http.post('/', { duplex: { closeGrace: true }, handler: noHandler })
// @ts-expect-error no such option
http.route({ method: 'POST', url: '/', duplex: { limit: 1 }, handler: noHandler })
// @ts-expect-error a number
http.route({ method: 'POST', url: '/', duplex: { bodyLimit: '1' }, handler: noHandler })
// @ts-expect-error no such option of a route
http.post('/', { dupleks: true }, noHandler)
// @ts-expect-error
http.route({ method: 'POST', url: '/', dupleks: true, handler: noHandler })
// @ts-expect-error a handler is needed
http.post('/', { duplex: true })
// @ts-expect-error
http.route({ method: 'POST', url: '/', duplex: true })

http.addHook('onRoute', (route) => {
  exactly<boolean | DuplexOptions | undefined>()(route.duplex)
})
export const shorthandOptions: RouteShorthandOptions = { duplex: true }
export const routeOptions: RouteOptions = { method: 'POST', url: '/', duplex: { idleTimeout: 1 }, handler: noHandler }
export const duplexRoutes: DuplexRouteOptions[] = [{ method: 'POST', url: '/', duplex: true, async * handler () { yield 'a' } }]
for (const route of duplexRoutes) http.route(route)
http.route(routeOptions)

// Handlers, named and inline, and the types of their arguments.

async function echo (request: FastifyRequest, reply: FastifyReply): Promise<void> { reply.duplex.pipe(reply.duplex) }
async function * upper (request: FastifyRequest, reply: FastifyReply): AsyncGenerator<string> {
  for await (const chunk of reply.duplex) yield String(chunk).toUpperCase()
}
const method: RouteHandlerMethod = async (request, reply) => { reply.duplex.end() }
const generator: DuplexHandler = async function * (request, reply) { yield * reply.duplex }
for (const handler of [echo, upper, method, generator]) {
  http.post('/', { duplex: true }, handler)
  http.post('/', { duplex: true, handler })
  http.route({ method: 'POST', url: '/', duplex: true, handler })
}

http.post('/', { duplex: true, preHandler: async (request, reply) => { exactly<HttpDuplex>()(reply.duplex) } }, async function (request, reply) {
  exactly<typeof http.prefix>()(this.prefix)
  exactly<IncomingHttpHeaders>()(request.raw.headers)
  exactly<unknown>()(request.params)
  exactly<string | undefined>()(request.headers['content-type'])
  exactly<AbortSignal>()(request.signal)
  exactly<Authority | null>()(request.authority)
  reply.code(403).send({ any: 'thing' })
})
http.post<{ Params: { id: string }, Querystring: { n: number }, Headers: { 'X-A': string } }>('/:id', { duplex: true }, async function * (request, reply) {
  exactly<string>()(request.params.id)
  exactly<number>()(request.query.n)
  exactly<string>()(request.headers['x-a'])
  yield * reply.duplex
})
http.route<{ Params: { id: string } }>({
  method: 'POST',
  url: '/:id',
  duplex: true,
  onRequest: async (request) => { exactly<string>()(request.params.id) },
  async * handler (request, reply) {
    exactly<string>()(request.params.id)
    // @ts-expect-error no such parameter
    yield request.params.name
    yield * reply.duplex
  }
})

// The stream.

export async function stream (stream: HttpDuplex): Promise<void> {
  const asDuplex: Duplex = stream
  asDuplex.destroy()
  exactly<boolean>()(stream.writeInformation(103, { link: ['</a>', '</b>'] }))
  exactly<HttpDuplex>()(stream.setTrailers({ 'x-size': stream.bytesRead }))
  exactly<Trailers>()(stream.trailers)
  exactly<string>()(stream.trailers['x-size'])
  exactly<'none' | 'length' | 'chunked' | 'close'>()(stream.framing.request)
  exactly<'none' | 'length' | 'chunked' | 'close' | undefined>()(stream.framing.response)
  exactly<string | undefined>()(stream.socket.remoteAddress)
  exactly<Readable>()(stream.requestBody)
  const { readable, writable } = stream.web()
  exactly<ReadableStream<Uint8Array>>()(readable)
  exactly<WritableStream<string | Uint8Array>>()(writable)
  await readable.pipeTo(writable)
  await readable.pipeThrough(new CompressionStream('gzip') as ReadableWritablePair<Uint8Array, Uint8Array>).pipeTo(writable)
  await fetch('http://a', { method: 'POST', body: readable })
  // @ts-expect-error bytes or text
  await writable.getWriter().write({})
  // @ts-expect-error read-only
  stream.requestBody = asDuplex
  stream.on('shutdown', () => {}).once('shutdown', () => {}).on('data', (chunk: Buffer) => {}).once('drain', () => {})
  // @ts-expect-error read-only
  stream.trailers = {}
  // @ts-expect-error
  stream.trailers['x-size'] = '1'
  // @ts-expect-error
  stream.framing.request = 'none'
  // @ts-expect-error a status
  stream.writeInformation('103')
  for (const content of ['text', Buffer.of(1), Uint8Array.of(2), new DataView(new ArrayBuffer(1))]) {
    exactly<boolean>()(stream.write(content, (error) => { error?.message.trim() }))
    exactly<HttpDuplex>()(stream.end(content, () => {}))
  }
  exactly<boolean>()(stream.write('text', 'latin1', () => {}))
  stream.end('text', 'latin1').end(() => {})
  stream.end()
  await pipeline(stream, stream)
  await pipeline(stream, async function * (source) { yield * source }, stream)
  stream.pipe(stream)
  // @ts-expect-error neither a string nor bytes
  stream.write({})
  // @ts-expect-error
  stream.write(1)
  // @ts-expect-error
  stream.write(undefined)
  // @ts-expect-error
  stream.end({})
  // @ts-expect-error
  stream.end(null)
  // @ts-expect-error not a field value
  stream.setTrailers({ a: {} })
}

http.get('/', (request, reply) => {
  // @ts-expect-error read-only
  reply.duplex = null
})

// Type providers.

const typed = Fastify().withTypeProvider<TypeBoxTypeProvider>().setValidatorCompiler(TypeBoxValidatorCompiler)
const typedHttps = Fastify({ https: {} }).withTypeProvider<TypeBoxTypeProvider>()
const typedHttp2 = Fastify({ http2: true }).withTypeProvider<TypeBoxTypeProvider>()
const schema = {
  params: Type.Object({ id: Type.Integer() }),
  querystring: Type.Object({ dry: Type.Optional(Type.Boolean()) }),
  headers: Type.Object({ 'X-Tenant': Type.String() }),
  response: { 200: Type.Object({ rows: Type.Integer() }), 400: Type.Object({ message: Type.String() }) }
}

typed.post('/:id', { duplex: true, schema }, async function * (request, reply) {
  exactly<number>()(request.params.id)
  exactly<boolean | undefined>()(request.query.dry)
  exactly<string>()(request.headers['x-tenant'])
  exactly<unknown>()(request.body)
  exactly<HttpDuplex>()(reply.duplex)
  // @ts-expect-error no such parameter
  request.params.name.trim()
  // @ts-expect-error no such query
  request.query.wet.valueOf()
  for await (const chunk of reply.duplex) yield String(chunk)
})
typed.post('/:id', {
  duplex: { idleTimeout: 1 },
  schema: { params: Type.Object({ id: Type.Integer() }) },
  preHandler: async (request, reply) => {
    exactly<number>()(request.params.id)
    exactly<HttpDuplex>()(reply.duplex)
  },
  async * handler (request, reply) {
    exactly<number>()(request.params.id)
    yield * reply.duplex
  }
})
typed.route({
  method: 'POST',
  url: '/:id',
  duplex: true,
  schema,
  preValidation: async (request) => { exactly<number>()(request.params.id) },
  handler: async (request, reply) => {
    exactly<number>()(request.params.id)
    exactly<boolean | undefined>()(request.query.dry)
    exactly<string>()(request.headers['x-tenant'])
    // @ts-expect-error no such header
    request.headers['x-other'].trim()
    reply.code(400).send({ message: 'no' })
    return { rows: 1 }
  }
})
typed.route({
  method: 'POST',
  url: '/:id',
  duplex: { bodyLimit: 1 },
  schema: { querystring: Type.Object({ n: Type.Number() }) },
  handler: async function * (request, reply) {
    exactly<number>()(request.query.n)
    yield * reply.duplex
  }
})
for (const route of [typedHttps.post, typedHttps.put]) {
  route('/:id', { duplex: true, schema }, async function * (request, reply) {
    exactly<number>()(request.params.id)
    yield * reply.duplex
  })
}
typedHttp2.post('/:id', { duplex: true, schema }, (request, reply) => {
  exactly<number>()(request.params.id)
  reply.duplex.end()
})
export const typedPlugin: FastifyPluginAsync<{}, HttpsServer, TypeBoxTypeProvider> = async (app) => {
  app.post('/:id', { duplex: true, schema }, async (request) => { exactly<number>()(request.params.id) })
}

// What a handler may return when the response has a schema: its type, or an async iterable of bytes or text.

declare const readable: Readable
typed.post('/', { duplex: true, schema }, async function * () { yield 'text' })
typed.post('/', { duplex: true, schema }, async function * () { yield Buffer.of(1); yield Uint8Array.of(2); yield 'text' })
typed.post('/', { duplex: true, schema }, () => readable)
typed.post('/', { duplex: true, schema }, async () => readable)
typed.post('/', { duplex: true, schema }, () => new ReadableStream<Uint8Array>())
typed.post('/', { duplex: true, schema }, () => new Response('text', { status: 201 }))
typed.post('/', { duplex: true, schema }, () => fetch('http://a'))
typed.post('/', { duplex: true, schema }, async () => flag ? readable : { rows: 1 })
typed.post('/', { duplex: true, schema }, async (request, reply) => { reply.duplex.end() })
typed.post('/', { duplex: true, schema, handler: async () => ({ rows: 1 }) })
http.post<{ Reply: { rows: number } }>('/', { duplex: true }, async function * () { yield 'text' })
http.route<{ Reply: { rows: number } }>({ method: 'POST', url: '/', duplex: true, async * handler () { yield 'text' } })
// @ts-expect-error neither bytes nor text
typed.post('/', { duplex: true, schema }, async function * () { yield 1 })
// @ts-expect-error
typed.post('/', { duplex: true, schema }, async function * () { yield { rows: 1 } })
// @ts-expect-error
typed.route({ method: 'POST', url: '/', duplex: true, schema, async * handler () { yield { rows: 1 } } })
// @ts-expect-error not the response's type
typed.post('/', { duplex: true, schema }, async () => ({ rows: 'one' }))
// @ts-expect-error
typed.route({ method: 'POST', url: '/', duplex: true, schema, handler: async () => 'text' })
// @ts-expect-error
http.post<{ Reply: { rows: number } }>('/', { duplex: true }, async () => 1)

// Without a schema a handler may return anything, but no async iterable of something else than bytes and text.

declare const something: unknown
http.post('/', { duplex: true }, async function * (request, reply) { yield 'text'; yield Buffer.of(1); yield * reply.duplex })
http.post('/', { duplex: true }, (request, reply) => reply.duplex.map((chunk) => String(chunk).toUpperCase()))
http.post('/', { duplex: true }, (request, reply) => something)
http.post('/', { duplex: true }, async (request, reply) => something)
http.post('/', { duplex: true }, (request, reply) => ({ rows: 1 }))
http.post('/', { duplex: true }, async (request, reply) => ({ rows: 1 }))
http.post('/', { duplex: true }, async (request, reply) => flag ? [1] : new Date())
http.post('/', { duplex: true }, async (request, reply) => reply.code(403).send('text'))
http.post('/', { duplex: true }, (request, reply) => reply)
http.post('/', { duplex: true }, (request, reply) => reply.duplex.end())
http.post('/', { duplex: true }, (request, reply) => { if (flag) return 'text'; reply.duplex.end() })
http.post('/', { duplex: true }, async (request, reply) => { throw new Error() })
http.post<{ Params: { id: string } }>('/:id', { duplex: true }, async (request, reply) => something)
http.post<{ Params: { id: string } }>('/:id', { duplex: true }, (request, reply) => reply.send(request.params.id))
http.post<{ Params: { id: string } }>('/:id', { duplex: true }, (request, reply) => ({ id: request.params.id }))
http.post('/', { duplex: true }, (request, reply) => {
  const asReply: FastifyReply = reply
  return asReply.send()
})
// @ts-expect-error neither bytes nor text
http.post('/', { duplex: true }, async function * (request, reply) { yield { rows: 1 } })
// @ts-expect-error
http.post('/', { duplex: { idleTimeout: 1 } }, async function * (request, reply) { yield 1 })
// @ts-expect-error
http.post('/', { duplex: true, async * handler (request, reply) { yield { rows: 1 } } })
// @ts-expect-error
http.route({ method: 'POST', url: '/', duplex: true, async * handler (request, reply) { yield { rows: 1 } } })
// @ts-expect-error
http.post<{ Params: { id: string } }>('/:id', { duplex: true }, async function * (request, reply) { yield { rows: request.params.id } })
// @ts-expect-error
http2.post('/', { duplex: true }, async function * (request, reply) { yield { rows: 1 } })
// @ts-expect-error
typed.post('/', { duplex: true }, async function * (request, reply) { yield { rows: 1 } })
// @ts-expect-error
http.post('/', { duplex: true }, (request, reply) => reply.duplex.map((chunk) => ({ chunk })) as AsyncIterable<{ chunk: unknown }>)
// Not caught: Fastify's own signature takes a handler whose parameters have types of their own, or that has none.
http.post('/', { duplex: true }, async function * () { yield { rows: 1 } })
http.post('/', { duplex: true }, async function * (request: FastifyRequest, reply: FastifyReply) { yield { rows: 1 } })

// Ordinary routes keep Fastify's types.

typed.post('/:id', { schema: { ...schema, body: Type.Object({ a: Type.String() }) } }, async (request, reply) => {
  exactly<number>()(request.params.id)
  exactly<{ a: string }>()(request.body)
  return { rows: 1 }
})
typed.route({ method: 'POST', url: '/:id', duplex: false, schema, handler: async (request) => ({ rows: request.params.id }) })
// @ts-expect-error no generator
typed.post('/:id', { schema }, async function * () { yield 'text' })
// @ts-expect-error
typed.post('/:id', { schema, duplex: false }, async function * () { yield 'text' })
// @ts-expect-error
typed.post('/:id', { schema, async * handler () { yield 'text' } })
// @ts-expect-error
typed.route({ method: 'POST', url: '/:id', schema, async * handler () { yield 'text' } })
// @ts-expect-error
http.post<{ Reply: { rows: number } }>('/', async function * () { yield 'text' })
// @ts-expect-error not the response's type
typed.post('/:id', { schema }, async () => ({ rows: 'one' }))
// @ts-expect-error
typed.route({ method: 'POST', url: '/:id', schema, handler: async () => 'text' })
// @ts-expect-error no such parameter
typed.get('/:id', { schema }, async (request) => ({ rows: request.params.name }))
http.get('/', async (request, reply) => ({ url: request.url, sent: reply.sent }))
http.get<{ Params: { id: string } }>('/:id', (request, reply) => { reply.send(request.params.id) })
exactly<RouteHandlerMethod>()(routeOptions.handler)

// Together with @fastify/websocket, which adds overloads too.

http.register(websocket)
http.get('/socket', { websocket: true }, (socket, request) => { socket.send(request.url) })
http.route({ method: 'GET', url: '/both', handler: async () => 'text', wsHandler: (socket) => socket.close() })
http.route({ method: 'GET', url: '/both', duplex: true, async * handler () { yield 'text' }, wsHandler: (socket) => socket.close() })

// app.duplex.

export function openExchanges (): void {
  for (const app of [http, https, http2, http2Secure, typed, logging]) exactly<ExchangeStatus[]>()(app.duplex.exchanges())
  const [{ request, id, method, route, state, framing, bytesRead, bytesWritten, age }] = http.duplex.exchanges()
  exactly<FastifyRequest>()(request)
  for (const name of [id, method, route]) exactly<string>()(name)
  for (const count of [bytesRead, bytesWritten, age]) exactly<number>()(count)
  exactly<HttpDuplex['framing']>()(framing)
  const states: ExchangeState[] = [state, 'hooks', 'handler', 'both', 'reading', 'writing', 'answer', 'tunnel', 'closing', 'detached']
  states.push('both')
  // @ts-expect-error
  http.duplex.exchanges()[0].age = 1
}

// CONNECT.

http.addHttpMethod('CONNECT')
http.connect('*', { duplex: true }, async (request, reply) => {
  exactly<Authority | null>()(request.authority)
  exactly<HttpDuplex>()(reply.duplex)
})
http2.connect('*', { duplex: true }, async function * (request, reply) { yield * reply.duplex })
// @ts-expect-error no such option
http.connect('*', { dupleks: true }, noHandler)
// @ts-expect-error a handler is needed
http.connect('*', { duplex: true })

// app.injectDuplex().

export async function inject (): Promise<void> {
  const client = await http.injectDuplex({ method: 'POST', url: '/', query: { a: '1' }, headers: { a: ['b', 1] }, cookies: { c: 'd' }, httpVersion: '1.0', remoteAddress: '::1', payload: 'text' })
  exactly<InjectedDuplex>()(client)
  exactly<InjectedResponse>()(await client.response)
  exactly<string | string[]>()((await client.response).headers['set-cookie'])
  exactly<InjectedDuplex>()(client.next({ path: '/' }))
  exactly<InjectedDuplex>()(client.setTrailers({ a: 1 }))
  exactly<Duplex>()(client.socket)
  exactly<InjectedDuplex>()(await typed.injectDuplex('/'))
  // @ts-expect-error HTTP/1 alone
  http.injectDuplex({ url: '/', httpVersion: '2' })
  // @ts-expect-error
  http.injectDuplex({ uri: '/' })
  // @ts-expect-error
  http.injectDuplex()
}
