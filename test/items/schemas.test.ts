// The schemas of items at run time: whose compilers they go through, what these may do, and what wrong declarations say. Codecs of
// one's own, and heartbeats.

import { once } from 'node:events'
import { setImmediate as immediate } from 'node:timers/promises'
import { Type, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox'
import { decode, encode } from '@msgpack/msgpack'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest, type RouteShorthandOptions } from 'fastify'
import { serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod'
import t from 'tap'
import { z } from 'zod'
import duplex from '../../lib/index.ts'
import type { ItemDuplex } from '../../types/index.d.ts'
import { itemCodec, jsonl, sse } from '../../lib/items/index.ts'
import { GET, LEFT, OPEN, chunk, resolvers, serve } from '../support/wire.ts'
import { JSONL, WAYS, serveWay, until } from './live.ts'

type Duplex = ItemDuplex<any, any>
const duplexOf = (reply: FastifyReply): Duplex => reply.duplex as unknown as Duplex
const bytes = (text: string): Buffer[] => [Buffer.from(text)]

/** Adds a route that sends back what it receives. */
function addEcho (app: FastifyInstance, url: string, duplex: object, options: object = {}): void {
  app.post(url, { ...options, duplex } as RouteShorthandOptions, async function * (_request: FastifyRequest, reply: FastifyReply) {
    for await (const item of duplexOf(reply).items) yield item
  } as unknown as () => void)
}

const ID = { type: 'object', properties: { id: { type: 'integer' } }, required: ['id'], additionalProperties: false }

// Compilers

for (const way of ['raw', 'h2c', 'inject']) {
  t.test(`schemas go through the compilers of their scope: ${way}`, async (t) => {
    const compiled: unknown[] = []
    const { send } = await serveWay(t, way, async (app, routeOptions) => {
      app.setErrorHandler((error: any, _request, reply) => reply.code(error.statusCode ?? 500).send({ code: error.code, message: error.message, validation: error.validation, validationContext: error.validationContext, cause: error.cause?.message }))
      app.addSchema({ $id: 'row', ...ID })
      addEcho(app, '/ref', { receive: jsonl({ $ref: 'row#' }), send: jsonl({ $ref: 'row#' }) }, routeOptions)
      await app.register(async (child) => {
        child.addSchema({ $id: 'other', type: 'string' })
        addEcho(child, '/ref', { receive: jsonl({ anyOf: [{ $ref: 'row#' }, { $ref: 'other#' }] }), send: jsonl({}) }, routeOptions)
      }, { prefix: '/child' })
      await app.register(async (child) => {
        child.setValidatorCompiler(validatorCompiler).setSerializerCompiler(serializerCompiler)
        addEcho(child, '/', { receive: jsonl(z.object({ id: z.number().default(7) })), send: jsonl(z.object({ id: z.number() })) }, routeOptions)
        addEcho(child, '/number', { receive: jsonl(z.string().pipe(z.preprocess(Number, z.number()))), send: jsonl(z.number()) }, routeOptions)
        addEcho(child, '/bad', { receive: jsonl(z.any()), send: jsonl(z.number()) }, routeOptions)
      }, { prefix: '/zod' })
      await app.register(async (child) => {
        child.setValidatorCompiler(TypeBoxValidatorCompiler)
        addEcho(child, '/', { receive: jsonl(Type.Object({ id: Type.Integer() })), send: jsonl(Type.Object({ id: Type.Integer() })) }, routeOptions)
      }, { prefix: '/typebox' })
      addEcho(app, '/route', { receive: jsonl('a schema'), send: [jsonl('another'), sse('another')] }, {
        ...routeOptions,
        validatorCompiler: (context: object) => { compiled.push(context); return () => true },
        serializerCompiler: (context: object) => { compiled.push(context); return (item: unknown) => `["own",\n${JSON.stringify(item)}\r\n]` }
      })
      addEcho(app, '/bytes', { receive: jsonl({}), send: jsonl({}) }, { ...routeOptions, serializerCompiler: () => () => Buffer.from('x') })
      addEcho(app, '/fluent', { receive: jsonl({ isFluentSchema: true, valueOf: () => ID }), send: jsonl({ isFluentJSONSchema: true, valueOf: () => ID }) }, routeOptions)
      const words = { ...routeOptions, schemaErrorFormatter: (errors: object[], context: string) => new Error(`${context}: ${errors.length} errors`) }
      addEcho(app, '/words', { receive: jsonl(ID), send: jsonl({}) }, words)
      await app.register(async (child) => {
        child.setSchemaErrorFormatter((errors, context) => new Error(`child, ${context}: ${errors.length}`))
        addEcho(child, '/words', { receive: jsonl(ID), send: jsonl({}) }, routeOptions)
      }, { prefix: '/child' })
    })
    const post = async (path: string, body: string): Promise<unknown> => {
      const { status, body: answer } = await send(path, bytes(body), JSONL)
      return status === 200 ? answer : { status, ...JSON.parse(answer) }
    }
    t.equal(await post('/ref', '{"id":"1"}\n{"id":2,"more":3}\n'), '{"id":1}\n{"id":2}\n')
    t.match(await post('/ref', '{}'), { status: 400, validation: [{ keyword: 'required' }], validationContext: 'body', message: "Item 0, at byte 0: item must have required property 'id'" })
    t.equal(await post('/child/ref', '{"id":1}\n"x"\n'), '{"id":1}\n"x"\n')
    t.match(await post('/child/ref', '[1,2]'), { status: 400, validation: [{ keyword: 'type' }, { keyword: 'type' }, { keyword: 'anyOf' }] })
    t.equal(await post('/zod/', '{}\n{"id":2,"more":3}\n'), '{"id":7}\n{"id":2}\n')
    t.match(await post('/zod/', '{"id":"x"}'), { status: 400, code: 'FST_ERR_DUPLEX_ITEM', validation: [{ instancePath: '/id', keyword: 'invalid_type' }] })
    t.equal(await post('/zod/number', '"1"\n"0"\n'), '1\n0\n', 'a value of 0 counts')
    t.match(await post('/zod/bad', '"x"'), { status: 500, code: 'FST_ERR_DUPLEX_ITEM_SERIALIZE' })
    t.equal(await post('/typebox/', '{"id":1}\n'), '{"id":1}\n')
    t.match(await post('/typebox/', '{"id":"x"}'), { status: 400, code: 'FST_ERR_DUPLEX_ITEM', validation: [{ keyword: 'type' }] })
    t.equal(await post('/route', '1\n'), '["own", 1  ]\n')
    t.equal((await send('/route', bytes('1\n'), { ...JSONL, accept: 'text/event-stream' })).body, 'data: ["own",\ndata: 1\ndata: ]\n\n')
    const context = { method: 'POST', url: '/route' }
    t.match(compiled.slice(0, 3), [{ schema: 'a schema', ...context, httpPart: 'body' }, ...['application/jsonl', 'text/event-stream'].map((contentType) => ({ schema: 'another', ...context, contentType, httpStatus: '200' }))])
    t.match(await post('/bytes', '1\n'), { status: 500, code: 'FST_ERR_DUPLEX_ITEM_SERIALIZE' })
    t.equal(await post('/fluent', '{"id":1,"more":1}\n'), '{"id":1}\n')
    t.match(await post('/words', '{}'), { status: 400, code: 'FST_ERR_DUPLEX_ITEM', message: 'Item 0, at byte 0: body: 1 errors', validation: [{ keyword: 'required' }] })
    t.match(await post('/child/words', '{}'), { status: 400, message: 'Item 0, at byte 0: child, body: 1' })
  })
}

/** Validators, and what becomes of the items 1 to 5, of which 3 is bad. */
const bad = (): Error => Object.assign(new Error('bad'), { validation: [{ message: 'bad' }] })
const thenable = (value: unknown): object => ({ then: (resolve: (value: unknown) => void) => { setImmediate(resolve, value) } })
const VALIDATORS: Record<string, (item: number) => unknown> = {
  '{ error }': (item) => item === 3 ? { error: bad() } : { value: item },
  false: Object.assign((item: number) => item !== 3, { errors: [{ message: 'bad' }] }),
  'a promise': async (item) => item === 3 ? { error: bad() } : { value: item },
  'a promise of nothing': async (item) => item === 3 ? { error: bad() } : undefined,
  'a promise of false': Object.assign(async (item: number) => item !== 3, { errors: [{ message: 'bad' }] }),
  'a promise that is rejected': async (item) => { await immediate(); if (item === 3) throw bad(); return { value: item } },
  'a promise only for bad ones': (item) => item === 3 ? Promise.reject(bad()) : true,
  'a promise of another kind': (item) => thenable(item === 3 ? { error: bad() } : { value: item })
}

for (const way of WAYS) {
  t.test(`validators of all kinds: ${way}`, async (t) => {
    const { send } = await serveWay(t, way, (app, routeOptions) => {
      app.setErrorHandler((error: any, _request, reply) => reply.code(error.statusCode).send({ code: error.code, index: error.index, offset: error.offset, validation: error.validation }))
      for (const [i, validator] of Object.values(VALIDATORS).entries()) {
        const options = { ...routeOptions, validatorCompiler: () => validator } as object
        const add = (path: string, format: ReturnType<typeof jsonl>, read: (duplex: Duplex, seen: unknown[]) => Promise<void>): void => {
          app.post(`/${i}${path}`, { ...options, duplex: { receive: format } }, async (_request, reply) => {
            const seen: unknown[] = []
            await read(duplexOf(reply), seen)
            return { seen }
          })
        }
        add('/one', jsonl({}), async ({ items }, seen) => {
          await t.rejects(async () => { for await (const item of items) seen.push(item) }, { code: 'FST_ERR_DUPLEX_ITEM', index: 2 })
          for await (const item of items) seen.push(item)
        })
        add('/batches', jsonl({}), async ({ items }, seen) => {
          await t.rejects(async () => { for await (const batch of items.batches()) seen.push(...batch) }, { code: 'FST_ERR_DUPLEX_ITEM', index: 2 })
          for await (const batch of items.batches()) seen.push(...batch)
        })
        add('/item', jsonl({}, { invalid: 'item' }), async ({ items }, seen) => {
          for await (const item of items) seen.push(item.ok ? item.value : item.error.index)
        })
        add('/item-batches', jsonl({}, { invalid: 'item' }), async ({ items }, seen) => {
          for await (const batch of items.batches()) seen.push(...batch.map((item) => item.ok ? item.value : item.error.index))
        })
        add('/fail', jsonl({}), async ({ items }) => { for await (const batch of items.batches()) t.ok(batch) })
      }
      // The schema of what is sent is checked with the same compiler, once something fails.
      app.post('/problem', { ...routeOptions, validatorCompiler: () => async () => { throw bad() }, duplex: { send: jsonl({}) } } as object, async function * () {
        yield 1
        await immediate()
        yield undefined
      } as any)
      for (const invalid of ['error', 'item'] as const) {
        app.post(`/mistake/${invalid}`, { ...routeOptions, validatorCompiler: () => () => { throw new TypeError('a mistake') }, duplex: { receive: jsonl({}, { invalid }) } }, async (_request, reply) => {
          try {
            for await (const item of duplexOf(reply).items) t.fail(item)
          } catch (error) {
            return { caught: (error as Error).name }
          }
        })
      }
    })
    for (const [i, what] of Object.keys(VALIDATORS).entries()) {
      const post = async (path: string): Promise<unknown> => JSON.parse((await send(`/${i}${path}`, bytes('1\n2\n3\n4\n5'), JSONL)).body)
      t.strictSame(await post('/one'), { seen: [1, 2, 4, 5] }, what)
      t.strictSame(await post('/batches'), { seen: [1, 2, 4, 5] }, `${what}: the good ones first`)
      t.strictSame(await post('/item'), { seen: [1, 2, 2, 4, 5] }, what)
      t.strictSame(await post('/item-batches'), { seen: [1, 2, 2, 4, 5] }, what)
      t.match(await post('/fail'), { code: 'FST_ERR_DUPLEX_ITEM', index: 2, offset: 4, validation: [{ message: 'bad' }] }, what)
    }
    t.match(await send('/problem', []), { status: 200, body: '1\n', isCutOff: true }, 'nobody knows whether the record fits')
    for (const invalid of ['error', 'item']) t.equal((await send(`/mistake/${invalid}`, bytes('1\n'), JSONL)).body, '{"caught":"TypeError"}')
  })
}

// Wrong declarations

t.test('schemas that cannot be compiled', async (t) => {
  for (const [duplexOptions, message] of [
    [{ receive: jsonl({ type: 'nonsense' }) }, /receive.*POST: \/x.*type/s],
    [{ send: jsonl({ $ref: 'missing#' }) }, /send.*POST: \/x.*missing/s]
  ] as const) {
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(duplex)
    app.post('/x', { duplex: duplexOptions } as object, async () => {})
    await t.rejects(Promise.resolve(app.ready()), { code: 'FST_ERR_DUPLEX_ITEM_SCHEMA', message })
  }
})

t.test('wrong formats', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(duplex)
  const expected = 'expected a format of fastify-duplex/items'
  for (const [options, message] of [
    [{ receive: {} }, expected], [{ receive: 'jsonl' }, expected], [{ receive: null }, expected], [{ send: [jsonl({}), jsonl] }, expected], [{ send: 5 }, expected], [{ receive: [undefined] }, expected],
    [{ receive: [] }, 'at least one'], [{ send: [] }, 'at least one'], [{ receive: sse({}) }, 'text/event-stream can only be sent'], [{ receive: [jsonl({}), sse({})] }, 'can only be sent'],
    [{ send: itemCodec({ mediaTypes: ['a/b'], decode: () => null })({}) }, 'a/b can only be received']
  ] as const) {
    t.throws(() => app.post('/', { duplex: options } as unknown as RouteShorthandOptions, async () => {}), { code: 'FST_ERR_DUPLEX_OPTION', message }, JSON.stringify(options))
  }
  for (const name of ['receive', 'send']) {
    const other = Fastify()
    t.teardown(() => other.close())
    await t.rejects(Promise.resolve(other.register(duplex, { [name]: jsonl({}) } as object)), { code: 'FST_ERR_DUPLEX_OPTION', message: name })
  }
})

// Codecs of one's own

/** A MessagePack value behind its length in four bytes. */
const msgpack = itemCodec({
  mediaTypes: ['application/x-msgpack'],
  decode (bytes) {
    const size = bytes.length < 4 ? 4 : 4 + bytes.readUInt32BE()
    return bytes.length < size ? size : { item: decode(bytes.subarray(4, size)), size }
  },
  encode (item) {
    const content = encode(item)
    const length = Buffer.alloc(4)
    length.writeUInt32BE(content.length)
    return Buffer.concat([length, content])
  },
  heartbeat: Buffer.of(0, 0, 0, 1, 0xc0)
})

/** The items of a body of MessagePack, of which a transport has made a text. */
function unpack (body: Buffer): unknown[] {
  const items: unknown[] = []
  for (let at = 0; at < body.length;) {
    const end = at + 4 + body.readUInt32BE(at)
    items.push(decode(body.subarray(at + 4, end)))
    at = end
  }
  return items
}

t.test('MessagePack, both ways', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    addEcho(app, '/', { receive: [jsonl(ID), msgpack(ID)], send: [msgpack({}), jsonl(ID)] })
    app.post('/bad', { duplex: { send: msgpack({}) } }, async function * () { yield 1; await immediate(); yield () => {} } as any)
    app.post('/none', { duplex: { send: msgpack({}, { problem: false }) } }, async function * () { yield 1; await immediate(); yield () => {} } as any)
  })
  const pack = (item: unknown): string => {
    const content = Buffer.from(encode(item)).toString('latin1')
    return String.fromCharCode(0, 0, content.length >> 8, content.length & 0xff) + content
  }
  const wire = await connect()
  const body = pack({ id: 1 }) + pack({ id: '2' }) + pack({ id: 3 })
  for (const chunks of [[body], Array.from(body)]) {
    wire.send(`${OPEN('/').replace('\r\n', '\r\nContent-Type: application/x-msgpack\r\n')}${chunks.map(chunk).join('')}0\r\n\r\n`)
    const { headers, body: answer } = await wire.response() as any
    t.equal(headers['content-type'], 'application/x-msgpack')
    t.strictSame(unpack(Buffer.from(answer, 'latin1')), [{ id: 1 }, { id: 2 }, { id: 3 }])
  }
  wire.send(`${OPEN('/').replace('\r\n', '\r\nContent-Type: application/x-msgpack\r\nAccept: application/jsonl\r\n')}${chunk(pack({ id: 1 }))}${chunk(pack({}))}0\r\n\r\n`)
  t.match(JSON.parse((await wire.response()).body), { code: 'FST_ERR_DUPLEX_ITEM', message: "Item 1, at byte 9: item must have required property 'id'" })
  for (const [path, items] of [['/bad', [1, { code: 'FST_ERR_DUPLEX_ITEM_SERIALIZE', index: 1 }]], ['/none', [1]]] as const) {
    const other = await connect()
    other.send(`${OPEN(path)}0\r\n\r\n`)
    await other.head()
    await t.rejects(other.body(), { code: 'FST_ERR_DUPLEX_TRUNCATED' })
    t.match(unpack(Buffer.from(await other.content(0), 'latin1')), items, path)
  }
})

// Heartbeats

const HEARTBEATS: Record<string, { send: object, beat: string, one: string }> = {
  'JSON Lines': { send: jsonl({}, { heartbeat: 5 }), beat: '\n', one: '1\n' },
  SSE: { send: sse({}, { heartbeat: 5 }), beat: ':\n\n', one: 'data: 1\n\n' },
  MessagePack: { send: msgpack({}, { heartbeat: 5 }), beat: '\0\0\0\x01\xc0', one: '\0\0\0\x01\x01' }
}

for (const way of ['raw', 'asynchronous constraint']) {
  for (const [name, { send, beat, one }] of Object.entries(HEARTBEATS)) {
    t.test(`heartbeats of ${name}: ${way}`, async (t) => {
      let duplex!: Duplex
      const opened = resolvers()
      const { connect, logged } = await serveWay(t, way, (app, routeOptions) => {
        app.post('/', { ...routeOptions, duplex: { send } } as object, async (_request, reply) => {
          duplex = duplexOf(reply)
          opened.resolve()
          await once(duplex, 'close')
        })
      })
      const isRunning = (): boolean => !(duplex as unknown as { itemWriter: { heartbeat: { _destroyed: boolean } } }).itemWriter.heartbeat._destroyed
      const wire = await connect()
      wire.send(OPEN('/'))
      await opened.promise
      t.equal(duplex.headersSent, false)
      duplex.flushHeaders()
      await wire.head()
      const first = await wire.content(2 * beat.length)
      t.equal(first.slice(0, 2 * beat.length), beat.repeat(2), 'behind the head')
      duplex.send(1)
      let text = ''
      while (!text.includes(one + beat)) text += await wire.content()
      t.equal(text.replaceAll(beat, ''), one.replaceAll(beat, ''), 'behind an item')
      t.equal(isRunning(), true)
      wire.send('0\r\n\r\n')
      duplex.end()
      t.equal(isRunning(), false, 'none behind the end')
      await wire.body()

      const other = await connect()
      const left = logged(LEFT)
      other.send(OPEN('/'))
      await until(() => !duplex.closed)
      duplex.send(1)
      await other.head()
      other.socket.resetAndDestroy()
      await left
      t.equal(isRunning(), false)
    })
  }
}

t.test('heartbeats wait while other bytes are sent', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/', { duplex: { send: msgpack({}, { heartbeat: 1000 }) } }, async (_request, reply) => {
      const { setInterval } = globalThis
      let restarts = 0
      globalThis.setInterval = (() => ({ refresh () { restarts++ } })) as unknown as typeof setInterval
      duplexOf(reply).send(1)
      globalThis.setInterval = setInterval
      for (const write of [() => duplexOf(reply).send(2), () => reply.duplex.write('bytes')]) {
        const before = restarts
        write()
        t.ok(restarts > before)
      }
      reply.duplex.end()
    })
  })
  await (await connect()).request(GET('/'))
})

t.test('what is sent behind the end starts no heartbeat', async (t) => {
  const over = resolvers<Duplex>()
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/', { duplex: { send: jsonl({}, { heartbeat: 5 }) } }, async (_request, reply) => { over.resolve(duplexOf(reply)); reply.duplex.end('end') })
  })
  await (await connect()).request(GET('/'))
  const duplex = await over.promise
  duplex.send(1)
  t.match(duplex, { itemWriter: { heartbeat: null } })
})
