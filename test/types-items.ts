// What TypeScript accepts, infers and refuses on routes with items. Compiled by `npm run types`, never run. An expected error
// that does not occur is an error.

import type { Http2Server } from 'node:http2'
import type { Server as HttpsServer } from 'node:https'
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import swagger from '@fastify/swagger'
import type { JsonSchemaToTsProvider } from '@fastify/type-provider-json-schema-to-ts'
import { Type, type TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify, { type FastifyPluginAsync, type FastifyReply, type FastifyRequest, type RouteOptions } from 'fastify'
import duplex, { type DuplexItemOptions, type DuplexOptions, type HttpDuplex, type InjectedDuplex, type ItemDuplex, type ItemHandler, type ItemRouteOptions, type Items } from 'fastify-duplex'
import { Agent, type ClientCall, type InterimHead, type OpenOptions, type ResponseHead, open } from 'fastify-duplex/client'
import { type CheckedItem, type ItemError, type ItemFormat, type ItemLimitError, type ItemOptions, type SendFormat, itemCodec, jsonSeq, jsonl, problemSchema, sse, withItemSchemas } from 'fastify-duplex/items'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false

/** `exactly<string>()(value)` compiles if the type of `value` is string, and not if it is any or a subtype. */
declare function exactly<Expected> (): <Actual>(value: Actual, ...wrong: Same<Expected, Actual> extends true ? [] : [never]) => void

declare const flag: boolean
declare const readable: Readable

interface Row { id: number, name: string }
interface Result { id: number, ok: boolean }
const RowSchema = Type.Object({ id: Type.Integer(), name: Type.String() })
const ResultSchema = Type.Object({ id: Type.Integer(), ok: Type.Boolean() })
const Other = Type.Object({ other: Type.String() })

// Formats.

const rows = jsonl(RowSchema)
const results = jsonl(ResultSchema)
exactly<ItemFormat<typeof RowSchema, ItemOptions<'error'>>>()(rows)
exactly<ItemFormat<typeof RowSchema, ItemOptions<'error'>>>()(jsonSeq(RowSchema))
exactly<SendFormat<typeof RowSchema>>()(sse(RowSchema))
exactly<ItemOptions<'item'>>()(jsonl(RowSchema, { maxItemSize: 65_536, invalid: 'item' }).options)
jsonl(RowSchema, { heartbeat: 1000, problem: false })
jsonl(RowSchema, { problem: (error) => ({ id: 0, name: error.message }) })
sse(RowSchema, { heartbeat: 1000, problem: (error) => { exactly<Error>()(error) } })
// @ts-expect-error no such option
jsonl(RowSchema, { maxItemsize: 1 })
// @ts-expect-error no such option, among others
jsonl(RowSchema, { maxItemsize: 1, heartbeat: 1 })
// @ts-expect-error a number
jsonl(RowSchema, { maxItemSize: '1' })
// @ts-expect-error
jsonSeq(RowSchema, { invalid: 'skip' })
// @ts-expect-error a schema is needed
jsonl()
// @ts-expect-error for receiving
sse(RowSchema, { maxItemSize: 1 })
// @ts-expect-error read-only
rows.schema = RowSchema

const msgpack = itemCodec({
  mediaTypes: ['application/x-msgpack'],
  decode: (bytes, isLast) => {
    exactly<Buffer>()(bytes)
    exactly<boolean>()(isLast)
    return bytes.length < 4 ? 4 : { item: bytes.toString(), size: bytes.length }
  },
  encode: (item) => Buffer.from(String(item))
})
exactly<ItemFormat<typeof RowSchema, ItemOptions<'item'>>>()(msgpack(RowSchema, { invalid: 'item' }))
// @ts-expect-error a media type is needed
itemCodec({ mediaTypes: [], decode: () => null, encode: () => Buffer.of() })
itemCodec({ mediaTypes: ['a/b'], decode: () => null, encode: () => 'text' })
// @ts-expect-error neither bytes nor a text
itemCodec({ mediaTypes: ['a/b'], decode: () => null, encode: () => 1 })
// @ts-expect-error not what it must return
itemCodec({ mediaTypes: ['a/b'], decode: () => 'text', encode: () => Buffer.of() })

// TypeBox: both directions, in each way to write a route.

const app = Fastify().withTypeProvider<TypeBoxTypeProvider>()
app.register(duplex)

app.post('/:id', { duplex: { receive: rows, send: [results, sse(ResultSchema)] }, schema: { params: Type.Object({ id: Type.Integer() }) } }, async function * (request, reply) {
  exactly<typeof app.prefix>()(this.prefix)
  exactly<number>()(request.params.id)
  // @ts-expect-error no such parameter
  request.params.name.trim()
  exactly<ItemDuplex<Row, Result>>()(reply.duplex)
  exactly<Items<Row>>()(reply.duplex.items)
  for await (const batch of reply.duplex.items.batches()) exactly<Row[]>()(batch)
  for await (const row of reply.duplex.items) {
    exactly<Row>()(row)
    // @ts-expect-error no such property
    row.title.trim()
    yield { id: row.id, ok: true }
  }
})
app.post('/', { duplex: { idleTimeout: 1, receive: rows, send: results } }, async (request, reply) => {
  const rest = reply.duplex.items
  exactly<boolean>()(reply.duplex.send({ id: 1, ok: true }))
  // @ts-expect-error a property is missing
  reply.duplex.send({ id: 1 })
  // @ts-expect-error a number
  reply.duplex.send({ id: '1', ok: true })
  // @ts-expect-error no such property
  reply.duplex.send({ id: 1, ok: true, more: true })
  // @ts-expect-error not an item
  reply.duplex.send('text')
  // @ts-expect-error read-only
  reply.duplex.items = rest
  for await (const row of rest) reply.duplex.send({ id: row.id, ok: true })
  reply.duplex.end()
})
app.post('/:id', {
  duplex: { receive: rows, send: results },
  schema: { params: Type.Object({ id: Type.Integer() }) },
  preHandler: async (request) => { exactly<number>()(request.params.id) },
  async * handler (request, reply) {
    exactly<number>()(request.params.id)
    exactly<ItemDuplex<Row, Result>>()(reply.duplex)
    for await (const { id } of reply.duplex.items) yield { id, ok: true }
  }
})
app.route({
  method: 'POST',
  url: '/:id',
  duplex: { receive: [rows, jsonSeq(RowSchema)], send: results },
  schema: { params: Type.Object({ id: Type.Integer() }) },
  preHandler: async (request) => { exactly<number>()(request.params.id) },
  handler: async function * (request, reply) {
    exactly<number>()(request.params.id)
    exactly<ItemDuplex<Row, Result>>()(reply.duplex)
    for await (const { id } of reply.duplex.items) yield { id, ok: true }
  }
})
app.route({
  method: 'POST',
  url: '/',
  duplex: { receive: rows, send: results },
  handler: async (request, reply) => {
    exactly<ItemDuplex<Row, Result>>()(reply.duplex)
    reply.duplex.send({ id: 1, ok: true })
  }
})

// What does not fit.

// @ts-expect-error a number
app.post('/', { duplex: { receive: rows, send: results } }, async function * () { yield { id: '1', ok: true } })
// @ts-expect-error a property is missing
app.post('/', { duplex: { receive: rows, send: results } }, async function * () { yield { id: 1 } })
// @ts-expect-error bytes
app.post('/', { duplex: { receive: rows, send: results } }, async function * () { yield Buffer.of(1) })
// @ts-expect-error text
app.post('/', { duplex: { receive: rows, send: results } }, async function * () { yield 'text' })
// @ts-expect-error what comes in is not what goes out
app.post('/', { duplex: { receive: rows, send: results } }, async function * (request, reply) { yield * reply.duplex.items })
// @ts-expect-error
app.post('/', { duplex: { receive: rows, send: results } }, (request, reply) => reply.duplex.items)
// @ts-expect-error bytes
app.post('/', { duplex: { receive: rows, send: results } }, async () => new ReadableStream<Uint8Array>())
// @ts-expect-error one item is not a body
app.post('/', { duplex: { receive: rows, send: results } }, async () => ({ id: 1, ok: true }))
// @ts-expect-error nor is an array
app.post('/', { duplex: { receive: rows, send: results } }, async () => [{ id: 1, ok: true }])
// @ts-expect-error a number
app.post('/', { duplex: { receive: rows, send: results }, async * handler () { yield { id: '1', ok: true } } })
// @ts-expect-error
app.route({ method: 'POST', url: '/', duplex: { receive: rows, send: results }, async * handler () { yield { id: '1', ok: true } } })
// @ts-expect-error
app.route({ method: 'POST', url: '/', duplex: { send: results }, async * handler () { yield 'text' } })
// @ts-expect-error server-sent events are only sent
app.post('/', { duplex: { receive: sse(RowSchema), send: results } }, async () => {})
// @ts-expect-error
app.post('/', { duplex: { receive: [rows, sse(RowSchema)] } }, async () => {})
// @ts-expect-error
app.route({ method: 'POST', url: '/', duplex: { receive: sse(RowSchema) }, handler: async () => {} })
// @ts-expect-error a schema is not a format
app.post('/', { duplex: { receive: RowSchema } }, async () => {})
// @ts-expect-error no such option
app.post('/', { duplex: { receive: rows, idleTimeOut: 1 } }, async () => {})
// @ts-expect-error a number
app.post('/', { duplex: { receive: rows, idleTimeout: '1' } }, async () => {})
// @ts-expect-error no such option of a route
app.post('/', { duplex: { receive: rows }, dupleks: true }, async () => {})
// @ts-expect-error only of a route
app.register(duplex, { receive: rows })
// @ts-expect-error
app.register(duplex, { idleTimeout: 1, send: results })

// What else a handler may return.

app.post('/', { duplex: { receive: rows, send: results } }, async () => {})
app.post('/', { duplex: { receive: rows, send: results } }, () => {})
app.post('/', { duplex: { send: results } }, () => new Response('text', { status: 201 }))
app.post('/', { duplex: { send: results } }, () => fetch('http://a'))
app.post('/', { duplex: { send: results } }, async (request, reply) => reply)
app.post('/', { duplex: { send: results } }, (request, reply) => reply)
app.post('/', { duplex: { send: results } }, (request, reply) => reply.code(403).send({ message: 'no' }))
app.post('/', { duplex: { send: results } }, async (request, reply) => reply.code(403).send({ message: 'no' }))
async function * someResults (): AsyncGenerator<Result> { yield { id: 1, ok: true } }
app.post('/', { duplex: { send: results } }, someResults)
app.post('/', { duplex: { send: results } }, () => someResults())
app.post('/', { duplex: { send: results } }, async () => someResults())
app.post('/', { duplex: { send: results } }, async () => new ReadableStream<Result>())
app.post('/', { duplex: { send: results } }, async () => readable)
app.post('/', { duplex: { send: results } }, async (request, reply) => flag ? someResults() : reply.code(403).send())
app.post('/', { duplex: { send: results }, schema: { response: { 403: Type.Object({ message: Type.String() }) } } }, (request, reply) => {
  if (flag) return reply.code(403).send({ message: 'no' })
  // @ts-expect-error no such property
  reply.code(403).send({ error: 'no' })
  return someResults()
})
app.post('/', { duplex: { receive: rows, send: rows } }, (request, reply) => reply.duplex.items)
app.post('/', { duplex: { receive: rows, send: rows } }, async function * (request, reply) { yield * reply.duplex.items })

// Literals in items.

const Message = Type.Union([Type.Object({ kind: Type.Literal('token'), text: Type.String() }), Type.Object({ kind: Type.Literal('end') })])
app.post('/', { duplex: { send: [jsonl(Message), sse(Message)] } }, async function * (request, reply) {
  reply.duplex.send({ kind: 'token', text: 'a' })
  yield { kind: 'token', text: 'a' }
  yield { kind: 'end' }
})
const Lists = Type.Object({ tags: Type.Array(Type.String()), pair: Type.Tuple([Type.Number(), Type.String()]), note: Type.Optional(Type.Null()) })
app.post('/', { duplex: { receive: rows, send: jsonl(Lists) } }, async function * (request, reply) {
  for await (const { id, name } of reply.duplex.items) yield { tags: [name], pair: [id, name] }
  yield { tags: [], pair: [1, 'a'], note: null }
})
app.post('/', { duplex: { send: jsonl(Lists) } }, async function * (request) { yield { tags: [request.id], pair: [1, 'a'] } })
app.post('/', { duplex: { send: jsonl(Lists) }, async * handler (request) { yield { tags: [request.id], pair: [1, 'a'] } } })
app.route({ method: 'POST', url: '/', duplex: { send: jsonl(Lists) }, handler: async function * (request) { yield { tags: [request.id], pair: [1, 'a'] } } })
// @ts-expect-error no such kind
app.post('/', { duplex: { send: jsonl(Message) } }, async function * () { yield { kind: 'start' } })

// Hooks and error handlers see bytes: the items are the handler's.

app.post('/', {
  duplex: { receive: rows, send: results },
  preHandler: async (request, reply) => { exactly<HttpDuplex>()(reply.duplex) },
  errorHandler: (error, request, reply) => {
    exactly<HttpDuplex>()(reply.duplex)
    reply.code(500).send({ message: error.message })
  }
}, async (request, reply) => {
  // @ts-expect-error a status
  reply.code('403')
  exactly<HttpDuplex>()(reply.code(200).duplex)
})
// One direction only.

app.post('/', { duplex: { receive: rows } }, async function * (request, reply) {
  exactly<ItemDuplex<Row>>()(reply.duplex)
  // @ts-expect-error it sends bytes
  reply.duplex.send({ id: 1, ok: true })
  reply.duplex.write('text')
  for await (const row of reply.duplex.items) yield row.name
})
app.post('/', { duplex: { send: results } }, async function * (request, reply) {
  exactly<ItemDuplex<never, Result>>()(reply.duplex)
  // @ts-expect-error it receives bytes
  exactly<unknown>()(reply.duplex.items)
  for await (const chunk of reply.duplex) yield { id: chunk.length, ok: true }
})
app.post('/', { duplex: { receive: rows }, schema: { response: { 200: ResultSchema } } }, async function * (request, reply) { yield Buffer.of(1) })
app.post('/', { duplex: { receive: rows }, schema: { response: { 200: ResultSchema } } }, async () => ({ id: 1, ok: true }))
// @ts-expect-error neither bytes nor text
app.post('/', { duplex: { receive: rows }, schema: { response: { 200: ResultSchema } } }, async function * (request, reply) { yield 1 })
// @ts-expect-error not the response's type
app.post('/', { duplex: { receive: rows }, schema: { response: { 200: ResultSchema } } }, async () => ({ id: '1' }))

declare const something: unknown
app.post('/', { duplex: { receive: rows } }, async function * (request, reply) { yield Buffer.of(1); yield 'text' })
app.post('/', { duplex: { receive: rows } }, (request, reply) => something)
app.post('/', { duplex: { receive: rows } }, async (request, reply) => ({ id: 1 }))
// @ts-expect-error neither bytes nor text, also without a schema
app.post('/', { duplex: { receive: rows } }, async function * (request, reply) { yield { id: 1 } })

// Bytes.

for (const options of [true, {}, { idleTimeout: 1 }] as const) {
  app.post('/', { duplex: options }, async function * (request, reply) {
    exactly<HttpDuplex>()(reply.duplex)
    // @ts-expect-error
    exactly<unknown>()(reply.duplex.items)
    // @ts-expect-error
    reply.duplex.send({})
    yield * reply.duplex
  })
}

// Several formats with different schemas: each may come, and what is sent must fit all.

app.post('/', { duplex: { receive: [jsonl(RowSchema), jsonSeq(Other)], send: [jsonl(ResultSchema), sse(Other)] } }, async function * (request, reply) {
  exactly<ItemDuplex<Row | { other: string }, Result & { other: string }>>()(reply.duplex)
  yield { id: 1, ok: true, other: 'a' }
})
// @ts-expect-error it fits one format alone
app.post('/', { duplex: { send: [jsonl(ResultSchema), sse(Other)] } }, async function * () { yield { id: 1, ok: true } })
// @ts-expect-error no item fits both
app.post('/', { duplex: { send: [jsonl(Type.String()), sse(Type.Number())] } }, async function * () { yield 'text' })
const Union = Type.Union([Type.Object({ a: Type.String() }), Type.Object({ b: Type.Boolean() })])
app.post('/', { duplex: { receive: [jsonl(Union), jsonSeq(Union)], send: [jsonl(Union), sse(Union)] } }, async (request, reply) => {
  exactly<ItemDuplex<{ a: string } | { b: boolean }, { a: string } | { b: boolean }>>()(reply.duplex)
})
app.post('/', { duplex: { receive: jsonl(Type.Boolean()), send: jsonl(Type.Boolean()) } }, async (request, reply) => {
  exactly<ItemDuplex<boolean, boolean>>()(reply.duplex)
})

// Bad items as values.

app.post('/', { duplex: { receive: jsonl(RowSchema, { invalid: 'item', maxItemSize: 100 }), send: results } }, async function * (request, reply) {
  for await (const item of reply.duplex.items) {
    exactly<CheckedItem<Row>>()(item)
    // @ts-expect-error it may be a bad one
    item.value.id.toFixed()
    if (item.ok) {
      exactly<Row>()(item.value)
      yield { id: item.value.id, ok: true }
    } else {
      exactly<ItemError | ItemLimitError>()(item.error)
      exactly<'FST_ERR_DUPLEX_ITEM' | 'FST_ERR_DUPLEX_ITEM_LIMIT'>()(item.error.code)
      exactly<number>()(item.error.offset)
      exactly<string | undefined>()(item.error.validation?.[0].message)
      yield { id: item.error.index, ok: false }
    }
  }
})
app.post('/', { duplex: { receive: jsonl(RowSchema, { invalid: 'error' }) } }, async (request, reply) => { exactly<ItemDuplex<Row>>()(reply.duplex) })
app.post('/', { duplex: { receive: jsonl(RowSchema, { invalid: flag ? 'item' : 'error' }) } }, async (request, reply) => { exactly<ItemDuplex<Row | CheckedItem<Row>>>()(reply.duplex) })

// Zod.

const zod = Fastify().withTypeProvider<ZodTypeProvider>()
zod.post('/:id', {
  duplex: { receive: jsonl(z.object({ id: z.int(), tags: z.array(z.string()).default([]) })), send: [jsonl(z.object({ ok: z.boolean() })), sse(z.object({ ok: z.boolean() }))] },
  schema: { params: z.object({ id: z.coerce.number() }) }
}, async function * (request, reply) {
  exactly<number>()(request.params.id)
  exactly<Items<{ id: number, tags: string[] }>>()(reply.duplex.items)
  for await (const row of reply.duplex.items) yield { ok: row.tags.length > 0 }
})
zod.route({
  method: 'POST',
  url: '/',
  duplex: { receive: jsonl(z.string(), { invalid: 'item' }), send: jsonl(z.discriminatedUnion('kind', [z.object({ kind: z.literal('a'), n: z.number() }), z.object({ kind: z.literal('b') })])) },
  async * handler (request, reply) {
    for await (const item of reply.duplex.items) {
      exactly<CheckedItem<string>>()(item)
      if (item.ok) yield { kind: 'a', n: item.value.length }
      else yield { kind: 'b' }
    }
  }
})
// @ts-expect-error a boolean
zod.post('/', { duplex: { send: jsonl(z.object({ ok: z.boolean() })) } }, async function * () { yield { ok: 'yes' } })
// @ts-expect-error
zod.post('/', { duplex: { receive: jsonl(z.string()), send: jsonl(z.number()) } }, async function * (request, reply) { yield * reply.duplex.items })

// JSON Schema, without `as const`.

const jsonSchema = Fastify().withTypeProvider<JsonSchemaToTsProvider>()
jsonSchema.post('/:id', {
  duplex: {
    receive: jsonl({ type: 'object', properties: { id: { type: 'integer' }, name: { type: 'string' } }, required: ['id', 'name'], additionalProperties: false }),
    send: jsonl({ type: 'object', properties: { kind: { enum: ['a', 'b'] } }, required: ['kind'], additionalProperties: false })
  },
  schema: { params: { type: 'object', properties: { id: { type: 'integer' } }, required: ['id'], additionalProperties: false } }
}, async function * (request, reply) {
  exactly<number>()(request.params.id)
  for await (const row of reply.duplex.items) {
    exactly<Row>()(row)
    yield { kind: row.name === 'a' ? 'a' : 'b' }
  }
})
jsonSchema.post('/', { duplex: { receive: jsonl({ type: 'string' }, { invalid: 'item' }), send: jsonl(problemSchema) } }, async (request, reply) => {
  for await (const item of reply.duplex.items) exactly<CheckedItem<string>>()(item)
  reply.duplex.send({ title: 'a', status: 400 })
  // @ts-expect-error a number
  reply.duplex.send({ title: 'a', status: '400' })
})
// @ts-expect-error no such kind
jsonSchema.post('/', { duplex: { send: jsonl({ enum: ['a', 'b'] }) } }, async function * () { yield 'c' })

// No type provider: unknown in, anything out.

const plain = Fastify()
plain.post('/', { duplex: { receive: jsonl({ type: 'object' }), send: jsonl({ type: 'object' }) } }, async function * (request, reply) {
  exactly<ItemDuplex<unknown, unknown>>()(reply.duplex)
  exactly<unknown>()(request.params)
  for await (const item of reply.duplex.items) {
    exactly<unknown>()(item)
    yield item
  }
})
plain.post('/', { duplex: { receive: jsonl({ type: 'object' }, { invalid: 'item' }) } }, async (request, reply) => {
  for await (const item of reply.duplex.items) exactly<CheckedItem<unknown>>()(item)
})
plain.post('/', { duplex: { receive: jsonl({ $ref: 'row#' }), send: jsonl({ $ref: 'result#' }) } }, async function * (request: FastifyRequest<{ Params: { id: string } }>, reply) {
  exactly<string>()(request.params.id)
  exactly<ItemDuplex<unknown, unknown>>()(reply.duplex)
  yield { any: 'thing' }
})
// @ts-expect-error no iterable
plain.post('/', { duplex: { send: jsonl({ type: 'object' }) } }, async () => ({ any: 'thing' }))

// Servers and encapsulated plugins.

const https = Fastify({ https: {} }).withTypeProvider<TypeBoxTypeProvider>()
const http2 = Fastify({ http2: true }).withTypeProvider<TypeBoxTypeProvider>()
for (const method of [https.post, https.put]) {
  method('/', { duplex: { receive: rows, send: results } }, async function * (request, reply) {
    exactly<ItemDuplex<Row, Result>>()(reply.duplex)
    for await (const { id } of reply.duplex.items) yield { id, ok: true }
  })
}
http2.post('/', { duplex: { receive: rows, send: results } }, async function * (request, reply) {
  request.raw.stream.session?.ping(() => {})
  exactly<ItemDuplex<Row, Result>>()(reply.duplex)
  for await (const { id } of reply.duplex.items) yield { id, ok: true }
})
http2.route({
  method: 'POST',
  url: '/',
  duplex: { receive: rows, send: results },
  async * handler (request, reply) {
    request.raw.stream.session?.ping(() => {})
    for await (const { id } of reply.duplex.items) yield { id, ok: true }
  }
})
// @ts-expect-error text
https.post('/', { duplex: { send: results } }, async function * () { yield 'text' })
// @ts-expect-error
http2.post('/', { duplex: { send: results } }, async function * () { yield 'text' })
plain.register(async (child) => {
  const typed = child.withTypeProvider<TypeBoxTypeProvider>()
  typed.post('/', { duplex: { receive: rows, send: results } }, async function * (request, reply) {
    for await (const { id } of reply.duplex.items) yield { id, ok: true }
  })
  child.withTypeProvider<ZodTypeProvider>().post('/', { duplex: { receive: jsonl(z.string()) } }, async (request, reply) => {
    exactly<ItemDuplex<string>>()(reply.duplex)
  })
  // @ts-expect-error text
  typed.post('/', { duplex: { send: results } }, async function * () { yield 'text' })
})
export const httpsPlugin: FastifyPluginAsync<{}, HttpsServer, TypeBoxTypeProvider> = async (app) => {
  app.post('/', { duplex: { receive: rows } }, async (request, reply) => { exactly<ItemDuplex<Row>>()(reply.duplex) })
}
export const http2Plugin: FastifyPluginAsync<{}, Http2Server, TypeBoxTypeProvider> = async (app) => {
  app.post('/', { duplex: { receive: rows } }, async (request, reply) => { exactly<ItemDuplex<Row>>()(reply.duplex) })
}

// Named handlers and options.

async function consume (duplex: ItemDuplex<Row, Result>): Promise<void> { for await (const { id } of duplex.items) duplex.send({ id, ok: true }) }
async function drop (duplex: ItemDuplex<Row>): Promise<void> { for await (const row of duplex.items) exactly<Row>()(row) }
async function end (duplex: HttpDuplex): Promise<void> { duplex.end() }
app.post('/', { duplex: { receive: rows, send: results } }, async (request, reply) => {
  await consume(reply.duplex)
  await drop(reply.duplex)
  await end(reply.duplex)
})
// @ts-expect-error it cannot send
app.post('/', { duplex: { receive: rows } }, async (request, reply) => { await consume(reply.duplex) })
app.post('/', { duplex: { receive: rows, send: results } }, async (request: FastifyRequest, reply: FastifyReply) => { await end(reply.duplex) })
const handler: ItemHandler<typeof rows, typeof results> = async function * (request, reply) {
  exactly<ItemDuplex<unknown, unknown>>()(reply.duplex)
  yield 1
}
plain.post('/', { duplex: { receive: rows, send: results } }, handler)
const itemOptions: DuplexItemOptions<typeof rows, typeof results> = { receive: rows, send: results, maxExchanges: 1 }
app.post('/', { duplex: itemOptions }, async (request, reply) => { exactly<ItemDuplex<Row, Result>>()(reply.duplex) })
const loose = { receive: rows, send: results, idleTimeout: 1 }
app.post('/', { duplex: loose }, async (request, reply) => { exactly<ItemDuplex<Row, Result>>()(reply.duplex) })
// @ts-expect-error text
app.post('/', { duplex: loose }, async function * () { yield 'text' })
const manyFormats: ItemFormat<typeof RowSchema>[] = [rows]
app.post('/', { duplex: { send: manyFormats } }, async (request, reply) => { exactly<ItemDuplex<never, Row>>()(reply.duplex) })
export const routes: ItemRouteOptions<typeof rows, undefined>[] = [{ method: 'POST', url: '/', duplex: { receive: rows }, handler: async () => {} }]
// @ts-expect-error at least one direction has items
export const neither: DuplexItemOptions = { idleTimeout: 1 }
// @ts-expect-error
export const bytes: DuplexOptions = { receive: rows }
// @ts-expect-error a type of its own: ItemRouteOptions
export const route: RouteOptions = { method: 'POST', url: '/', duplex: { receive: rows }, handler: async () => {} }

// app.injectDuplex().

export async function inject (): Promise<void> {
  const client = await app.injectDuplex({ url: '/', method: 'POST', send: rows, receive: [results, jsonSeq(ResultSchema)] })
  exactly<Items<Result>>()(client.items)
  exactly<boolean>()(client.send({ id: 1, name: 'a' }))
  for await (const result of client.items) exactly<Result>()(result)
  for await (const batch of client.items.batches()) exactly<Result[]>()(batch)
  exactly<number>()((await client.response).statusCode)
  client.end()
  // @ts-expect-error a property is missing
  client.send({ id: 1 })
  // @ts-expect-error what the server sends
  client.send({ id: 1, ok: true })
  // @ts-expect-error no such option
  app.injectDuplex({ uri: '/', send: rows })
  // @ts-expect-error only for servers to send
  app.injectDuplex({ url: '/', send: sse(ResultSchema) })
  // @ts-expect-error one format
  app.injectDuplex({ url: '/', send: [rows] })

  const sender = await app.injectDuplex({ url: '/', send: rows })
  sender.send({ id: 1, name: 'a' })
  // @ts-expect-error it receives bytes
  exactly<unknown>()(sender.items)
  const receiver = await app.injectDuplex({ url: '/', receive: jsonl(ResultSchema, { invalid: 'item' }) })
  for await (const item of receiver.items) exactly<CheckedItem<Result>>()(item)
  const events = await app.injectDuplex({ url: '/', receive: [sse(ResultSchema), rows] })
  exactly<Items<Result | Row>>()(events.items)
  // @ts-expect-error it sends bytes
  receiver.send({ id: 1, name: 'a' })
  const bytes = await app.injectDuplex({ url: '/' })
  exactly<InjectedDuplex>()(bytes)
  // @ts-expect-error
  exactly<unknown>()(bytes.items)
  // @ts-expect-error
  bytes.send({})

  exactly<Items<Row>>()(client.next({ url: '/', receive: rows }).items)
  exactly<InjectedDuplex>()(client.next({ url: '/' }))
  const fromZod = await zod.injectDuplex({ url: '/', send: jsonl(z.object({ id: z.int() })), receive: jsonl(z.string()) })
  exactly<Items<string>>()(fromZod.items)
  fromZod.send({ id: 1 })
  // @ts-expect-error a number
  fromZod.send({ id: '1' })
  const unknowns = await plain.injectDuplex({ url: '/', send: jsonl({ type: 'string' }), receive: jsonl({ type: 'string' }) })
  exactly<Items<unknown>>()(unknowns.items)
  unknowns.send({ any: 'thing' })
}

// open() of fastify-duplex/client. The types of items are those of a type provider; without one they are unknown.

export async function call (signal: AbortSignal): Promise<void> {
  const agent = new Agent({ maxConnections: 1, idleTimeout: 1, connectTimeout: 1, tls: { ca: 'a', servername: 'b' } })
  exactly<number>()(agent.connections)
  const bytes = open('http://a', { method: 'POST', path: '*', query: { a: 'b' }, headers: { a: ['b', 1] }, payload: readable, signal, agent, headersTimeout: 1, bodyTimeout: 1, expectTimeout: 1, maxHeadSize: 1, maxTrailerSize: 1, maxChunkExtensionSize: 1 })
  exactly<ClientCall>()(bytes)
  exactly<ClientCall>()(open(new URL('http://a')))
  const head = await bytes.response
  exactly<ResponseHead>()(head)
  exactly<InterimHead[]>()(head.informational)
  exactly<string | string[]>()(head.headers.a)
  exactly<string>()(bytes.trailers.a)
  exactly<Socket | null>()(bytes.socket)
  exactly<ClientCall>()(bytes.setTrailers({ a: 1 }))
  exactly<OpenOptions['payload']>()(undefined as string | Uint8Array | AsyncIterable<unknown> | object | undefined)
  // @ts-expect-error
  exactly<unknown>()(bytes.items)
  // @ts-expect-error
  bytes.send({})
  // @ts-expect-error
  open()
  // @ts-expect-error no such option
  open('http://a', { url: '/' })
  // @ts-expect-error
  open('http://a', { agent: {} })
  // @ts-expect-error
  new Agent({ maxSockets: 1 }).close()
  // @ts-expect-error read-only
  agent.connections = 1

  const unknowns = open('http://a', { send: rows, receive: results })
  exactly<Items<unknown>>()(unknowns.items)
  unknowns.send({ any: 'thing' })
  // @ts-expect-error only for servers to send
  open('http://a', { send: sse(ResultSchema) })
  // @ts-expect-error one format
  open('http://a', { send: [rows] })

  const typed = open<[typeof results, ReturnType<typeof events>], typeof rows, TypeBoxTypeProvider>('http://a', { send: rows, receive: [results, events()] })
  exactly<Items<Result | Row>>()(typed.items)
  for await (const item of typed.items) exactly<Result | Row>()(item)
  exactly<boolean>()(typed.send({ id: 1, name: 'a' }))
  // @ts-expect-error a property is missing
  typed.send({ id: 1 })
  // @ts-expect-error another format
  open<typeof results, undefined, TypeBoxTypeProvider>('http://a', { receive: rows })
  const sender = open<undefined, typeof rows, TypeBoxTypeProvider>('http://a', { send: rows })
  sender.send({ id: 1, name: 'a' })
  // @ts-expect-error it receives bytes
  exactly<unknown>()(sender.items)
}

declare function events (): SendFormat<typeof RowSchema>

// @fastify/swagger.

app.register(swagger, withItemSchemas({ openapi: { openapi: '3.2.0' }, transform: ({ schema, url }: { schema: object, url: string }) => ({ schema, url }) }))
exactly<{ hideUntagged: boolean }>()(withItemSchemas({ hideUntagged: true }))
// @ts-expect-error no options
withItemSchemas('openapi')

// Explicit types, as of `Params`, in place of a type provider.

plain.post<{ Params: { id: string }, Receive: Row, Send: Result }>('/:id', { duplex: { receive: jsonl({ $ref: 'row#' }), send: [jsonl({ $ref: 'result#' }), sse({ $ref: 'result#' })] } }, async function * (request, reply) {
  exactly<string>()(request.params.id)
  exactly<ItemDuplex<Row, Result>>()(reply.duplex)
  for await (const { id } of reply.duplex.items) yield { id, ok: true }
})
plain.post<{ Receive: Row }>('/', { duplex: { receive: jsonl({ $ref: 'row#' }) } }, async function * (request, reply) {
  exactly<ItemDuplex<Row>>()(reply.duplex)
  yield 'text'
})
plain.post<{ Send: { kind: 'a' | 'b' } }>('/', { duplex: { send: jsonl({ $ref: 'row#' }) }, async * handler () { yield { kind: 'a' } } })
plain.route<{ Receive: Row, Send: Result }>({
  method: 'POST',
  url: '/',
  duplex: { receive: jsonl({ $ref: 'row#' }), send: jsonl({ $ref: 'result#' }) },
  async * handler (request, reply) {
    for await (const { id } of reply.duplex.items) yield { id, ok: true }
  }
})
// @ts-expect-error a number
plain.post<{ Send: Result }>('/', { duplex: { send: jsonl({ $ref: 'result#' }) } }, async function * () { yield { id: '1', ok: true } })
// @ts-expect-error no explicit type
plain.post<{ Params: { id: string } }>('/', { duplex: { send: jsonl({ $ref: 'result#' }) } }, async function * () { yield { id: '1', ok: true } })
