// Bodies that a handler returns: how they are written, and that they are cancelled when the exchange fails, however silent.

import { Readable } from 'node:stream'
import { ReadableStream as NodeStream } from 'node:stream/web'
import { runInNewContext } from 'node:vm'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { KINDS, type Kind, type ServedKind, serveKind } from '../support/kinds.ts'
import { GET, TRANSPORTS, chunked, resolvers, serve } from '../support/wire.ts'

/** Each gives `first`, if there is one, and then nothing: neither more nor its end. `cancelled` is called when it is told to end. */
const SILENT: Record<string, (cancelled: () => void, first: string[]) => unknown> = {
  'a web stream': webStream,
  'a Response': (cancelled, first) => new Response(webStream(cancelled, first)),
  'a Readable': (cancelled, first) => {
    const readable = new Readable({ read () {}, destroy (error, done) { cancelled(); done(error) } })
    first.forEach((chunk) => readable.push(chunk))
    return readable
  },
  'an iterator': (cancelled, first) => {
    const chunks = [...first]
    return {
      [Symbol.asyncIterator]: () => ({
        next: () => chunks.length > 0 ? Promise.resolve({ done: false, value: chunks.shift() }) : new Promise(() => {}),
        return: async () => { cancelled(); return { done: true, value: undefined } }
      })
    }
  },
  'an iterator that fails to return': (cancelled) => ({
    [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}), return () { cancelled(); throw new Error('cannot return') } })
  }),
  'an iterator without return': (cancelled) => {
    cancelled() // it cannot be told
    return { [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }) }
  },
  'a generator that waits': (cancelled, first) => {
    cancelled() // its return() waits as long as it does
    return (async function * () { yield * first; await new Promise(() => {}) })()
  }
}

function webStream (cancelled: () => void, first: string[]): ReadableStream {
  return new ReadableStream({
    start (controller) { first.forEach((chunk) => controller.enqueue(Buffer.from(chunk))) },
    cancel: cancelled
  })
}

interface Silent extends ServedKind {
  /** Each source has been told to end, and the handler's promise has settled. */
  over: Promise<unknown>
}

/** An app with a route that returns one silent source. */
async function serveSilent (t: Test, kind: Kind, make: typeof SILENT[string], first: string[], plugin: object = {}): Promise<Silent> {
  const cancelled = resolvers()
  const settled = resolvers()
  const opened = resolvers()
  const served = await serveKind(t, kind, (app, routeOptions) => {
    app.addHook('onRoute', (route) => {
      const handler = route.handler as (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>
      route.handler = function (request, reply) {
        const promise = handler.call(this, request, reply)
        promise.then(() => settled.resolve(), () => settled.resolve())
        opened.resolve()
        return promise
      }
    })
    app.post('/', { ...routeOptions, duplex: true }, () => make(cancelled.resolve, first) as Readable)
  }, { plugin })
  return {
    ...served,
    over: Promise.all([cancelled.promise, settled.promise]),
    ask: async (...args) => {
      const asked = await served.ask(...args)
      await opened.promise
      return asked
    }
  }
}

for (const [kindName, kind] of Object.entries(KINDS)) {
  t.test(`silent bodies are cancelled: ${kindName}`, async (t) => {
    for (const [name, make] of Object.entries(SILENT)) {
      for (const first of [[], ['first']]) {
        const when = `${name}, ${first.length > 0 ? 'after' : 'before'} the head`
        await t.test(`the client leaves: ${when}`, async (t) => {
          const { ask, over } = await serveSilent(t, kind, make, first)
          const asked = await ask('/')
          if (first.length > 0 && !name.startsWith('an iterator ')) t.equal(await asked.status(), 200)
          asked.leave()
          await over
        })
        await t.test(`idleTimeout: ${when}`, async (t) => {
          const { ask, over } = await serveSilent(t, kind, make, first, { idleTimeout: 20 })
          await ask('/')
          await over
        })
        await t.test(`closeGrace: ${when}`, async (t) => {
          const { app, ask, over } = await serveSilent(t, kind, make, first, { closeGrace: 1 })
          const asked = await ask('/')
          const closed = app.close()
          await over
          asked.leave()
          await closed
        })
      }
    }
  })
}

/** The global type is that of the DOM, which does not have the method. */
const streamFrom = (chunks: Iterable<unknown> | AsyncIterable<unknown>): ReadableStream => NodeStream.from(chunks) as ReadableStream

/** Routes that return every kind of body. */
function bodies (app: FastifyInstance, routeOptions = {}): void {
  const route = (url: string, handler: (request: FastifyRequest, reply: FastifyReply) => any): void => {
    app.route({ method: ['GET', 'POST'], url, ...routeOptions, duplex: true, handler })
  }
  route('/web', () => streamFrom(['a', 'b']))
  route('/response', () => new Response('made', { status: 201, headers: [['x-a', 'b'], ['set-cookie', 'a=1'], ['set-cookie', 'b=2'], ['content-type', 'text/x']] }))
  route('/promised-response', async () => new Response(streamFrom([Buffer.from('a'), Buffer.from('b')]), { status: 203 }))
  route('/hop-by-hop', () => new Response('made', { headers: { 'transfer-encoding': 'chunked', 'keep-alive': 'timeout=5', connection: 'close', upgrade: 'h2c', 'x-a': 'b' } }))
  route('/null', () => new Response(null, { status: 204, headers: { 'x-a': 'b' } }))
  route('/error', () => Response.error())
  route('/locked', () => {
    const stream = streamFrom(['a'])
    stream.getReader()
    return stream
  })
  route('/used', async () => {
    const response = new Response('used')
    await response.text()
    return response
  })
  route('/head-sent', (request, reply) => {
    reply.code(202).duplex.flushHeaders()
    return new Response('late', { status: 500, headers: { 'x-a': 'b' } })
  })
  route('/both', (request, reply) => new Response(streamFrom(upper(reply)), { headers: { 'x-a': 'b' } }))
  route('/nonsense', () => new Response(streamFrom([{}])))
  route('/failing', () => new ReadableStream({ pull () { throw new Error('failed') } }))
}

async function * upper (reply: FastifyReply): AsyncGenerator<Buffer> {
  for await (const chunk of reply.duplex) yield Buffer.from(String(chunk).toUpperCase())
}

const EXPECTED: [string, number, string | RegExp, object][] = [
  ['/web', 200, 'ab', {}],
  ['/response', 201, 'made', { 'x-a': 'b', 'set-cookie': ['a=1', 'b=2'], 'content-type': 'text/x' }],
  ['/promised-response', 203, 'ab', {}],
  ['/hop-by-hop', 200, 'made', { 'x-a': 'b', upgrade: undefined }],
  ['/null', 204, '', { 'x-a': 'b' }],
  ['/error', 500, /FST_ERR_BAD_STATUS_CODE/, {}],
  ['/locked', 500, /FST_ERR_REP_READABLE_STREAM_LOCKED/, {}],
  ['/used', 500, /FST_ERR_REP_RESPONSE_BODY_CONSUMED/, {}],
  ['/head-sent', 202, 'late', { 'x-a': undefined }],
  ['/both', 200, 'HELLO', { 'x-a': 'b' }],
  ['/nonsense', 500, /FST_ERR_DUPLEX_CONTENT/, {}],
  ['/failing', 500, /failed/, {}]
]

for (const transport of TRANSPORTS) {
  t.test(`bodies of every kind, over ${transport}`, async (t) => {
    const { connect } = await serve(t, transport, bodies)
    const wire = await connect()
    for (const [url, statusCode, body, headers] of EXPECTED) {
      t.match(await wire.request(chunked(url, 'hello')), { statusCode, body, headers }, url)
    }
  })
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`bodies of every kind: ${name}`, async (t) => {
    const { app, ask } = await serveKind(t, kind, bodies)
    for (const [url, statusCode, body] of EXPECTED) {
      const asked = await ask(url)
      asked.write('hello')
      asked.end()
      t.equal(await asked.status(), statusCode, url)
      t.match(await asked.body(), body, url)
    }
    for (const [url, statusCode, payload, headers] of EXPECTED) {
      t.match(await app.inject({ method: 'POST', url, payload: 'hello' }), { statusCode, payload, headers }, `${url}, injected`)
    }
  })
}

t.test('promises of other kinds are waited for', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/realm', { duplex: true }, () => runInNewContext('Promise.resolve("other")'))
    app.post('/both', { duplex: true }, () => Object.assign(Promise.resolve('none'), { async * [Symbol.asyncIterator] () { yield 'other' } }))
    app.post('/thenable', { duplex: true }, () => ({ then: (resolve: (value: string) => void) => { setImmediate(resolve, 'other') } }) as never)
  })
  const wire = await connect()
  for (const path of ['/realm', '/thenable', '/both']) t.equal((await wire.request(chunked(path, 'hello'))).body, 'other', path)
})

t.test('HEAD cancels a body', async (t) => {
  const names = Object.keys(SILENT).filter((name) => !name.startsWith('a generator'))
  const gone: string[] = []
  const { connect } = await serve(t, 'tcp', (app) => {
    for (const name of names) app.get(`/${names.indexOf(name)}`, { duplex: true }, () => SILENT[name](() => { gone.push(name) }, []) as Readable)
    app.get('/unclosable', { duplex: true }, () => new Readable({ read () {}, destroy (cause, done) { done(new Error('cannot close', { cause })) } }))
    app.get('/status', { duplex: true }, () => new Response('made', { status: 201, headers: { 'x-a': 'b' } }))
  })
  const wire = await connect()
  for (const name of names) {
    t.equal((await wire.request(GET(`/${names.indexOf(name)}`).replace('GET', 'HEAD'))).statusCode, 200)
    t.ok(gone.includes(name), name)
  }
  t.equal((await wire.request(GET('/unclosable').replace('GET', 'HEAD'))).statusCode, 200)
  t.match(await wire.request(GET('/status').replace('GET', 'HEAD')), { statusCode: 201, fields: { 'x-a': 'b' } })
})

t.test('a body that is returned when the exchange is over is cancelled', async (t) => {
  for (const [name, make] of Object.entries(SILENT)) {
    const cancelled = resolvers()
    const { connect } = await serve(t, 'tcp', (app) => {
      app.post('/', { duplex: true }, async (request, reply) => {
        await new Promise((resolve) => { reply.duplex.on('close', resolve).resume() })
        return make(cancelled.resolve, []) as Readable
      })
    })
    const wire = await connect()
    wire.send('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n')
    await wire.head() // the 100: the handler is reading
    wire.socket.destroy()
    await cancelled.promise
    t.pass(name)
  }
})
