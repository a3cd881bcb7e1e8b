// The option `onSend`: the hooks run before the head of a duplex body, and everything that is written waits for them.

import { once } from 'node:events'
import { setImmediate as immediate } from 'node:timers/promises'
import cookie from '@fastify/cookie'
import session from '@fastify/session'
import type { FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import { jsonl } from '../../lib/items/index.ts'
import { proxy } from '../../lib/proxy/index.ts'
import { KINDS, type Kind, serveKind } from '../support/kinds.ts'
import { GET, UPGRADE, chunked, resolvers, serve } from '../support/wire.ts'

declare module 'fastify' {
  interface Session { count?: number }
}

type Handler = (request: FastifyRequest, reply: FastifyReply) => any

const LATER = (kind: Kind): Record<string, string> => kind === KINDS['asynchronous constraint'] ? { later: 'yes' } : {}

const HOOKS: Record<string, Function> = {
  promise: async (_request: FastifyRequest, reply: FastifyReply, payload: unknown) => { await immediate(); reply.header('x-hook', `${payload}`); return payload },
  'promise at once': async (_request: FastifyRequest, reply: FastifyReply, payload: unknown) => { reply.header('x-hook', `${payload}`) },
  callback: (_request: FastifyRequest, reply: FastifyReply, payload: unknown, done: Function) => { reply.header('x-hook', `${payload}`); done(null, payload) },
  'callback later': (_request: FastifyRequest, reply: FastifyReply, payload: unknown, done: Function) => { reply.header('x-hook', `${payload}`); setImmediate(() => done()) }
}

const BIG = 'x'.repeat(200_000)

/** Each ends a response, with its body and trailers. */
const WRITERS: Record<string, { handler: Handler, body: string, options?: object }> = {
  'end() alone': { handler: async (_request, { duplex }) => { duplex.end() }, body: '' },
  'end() with content': { handler: async (_request, { duplex }) => { duplex.end('x') }, body: 'x' },
  'writes in one turn': { handler: async (_request, { duplex }) => { duplex.write('a'); duplex.write('b'); duplex.end('c') }, body: 'abc' },
  'under backpressure': {
    handler: async (_request, { duplex }) => {
      if (!duplex.write(BIG)) await once(duplex, 'drain')
      duplex.end(BIG)
    },
    body: BIG + BIG
  },
  'a callback of write()': { handler: async (_request, { duplex }) => { await new Promise((resolve) => { duplex.write('a', resolve) }); duplex.end('b') }, body: 'ab' },
  'flushHeaders()': { handler: async (_request, { duplex }) => { duplex.flushHeaders(); setImmediate(() => setImmediate(() => duplex.end('x'))) }, body: 'x' },
  'flushHeaders() and write()': { handler: async (_request, { duplex }) => { duplex.flushHeaders(); duplex.write('a'); duplex.end('b') }, body: 'ab' },
  'a generator': { handler: async function * () { yield 'a'; yield 'b' }, body: 'ab' },
  'a Response': { handler: () => new Response('made'), body: 'made' },
  'a pipe': { handler: (_request, { duplex }) => { duplex.pipe(duplex) }, body: 'abc' },
  items: { handler: async function * () { yield { a: 1 }; yield { a: 2 } }, body: '{"a":1}\n{"a":2}\n', options: { send: jsonl({}) } },
  'send()': { handler: async (_request, { duplex }) => { const { send } = duplex as unknown as { send: (item: unknown) => void }; send.call(duplex, 1); duplex.end() }, body: '1\n', options: { send: jsonl({}) } },
  trailers: { handler: async (_request, { duplex }) => { duplex.write('a'); duplex.setTrailers({ 'x-sum': '1' }); await immediate(); duplex.end() }, body: 'a' },
  'an ordinary answer': { handler: async () => 'x', body: 'x' }
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: hooks of every kind, and writers of every kind`, async (t) => {
    let runs = 0
    const { app, ask, log } = await serveKind(t, kind, (app, routeOptions) => {
      for (const [i, onSend] of Object.values(HOOKS).entries()) {
        for (const [j, { handler, options }] of Object.values(WRITERS).entries()) {
          app.post(`/${i}/${j}`, {
            duplex: { onSend: true, ...options } as object,
            onSend: [(_request: unknown, _reply: unknown, _payload: unknown, done: () => void) => { runs++; done() }, onSend] as never,
            ...routeOptions
          }, handler)
        }
      }
    })
    for (const [i, hook] of Object.keys(HOOKS).entries()) {
      for (const [j, [writer, { body }]] of Object.entries(WRITERS).entries()) {
        const url = `/${i}/${j}`
        const before = runs
        const asked = await ask(url, LATER(kind))
        asked.write('abc')
        asked.end()
        t.equal(await asked.status(), 200, `${hook}: ${writer}`)
        t.equal(await asked.body(), body, `${hook}: ${writer}`)
        t.equal(runs, before + 1, 'once')
        if (name === 'raw') {
          const injected = await app.inject({ method: 'POST', url, payload: 'abc' })
          t.match(injected, { statusCode: 200, body, headers: { 'x-hook': writer === 'an ordinary answer' ? 'x' : 'undefined' } }, `${hook}: ${writer} injected`)
        }
      }
    }
    t.strictSame(log.filter(({ level }) => level > 30), [])
  })

  t.test(`${name}: hooks that fail are answered`, async (t) => {
    const fails: Record<string, Function> = {
      async: async () => { throw new Error('hooked') },
      later: async () => { await immediate(); throw new Error('hooked') },
      throws: () => { throw new Error('hooked') },
      callback: (_request: unknown, _reply: unknown, _payload: unknown, done: (error: Error) => void) => { done(new Error('hooked')) }
    }
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      for (const [fail, hook] of Object.entries(fails)) {
        for (const [j, { handler, options }] of Object.values(WRITERS).entries()) {
          let runs = 0 // the answer to the error has hooks too
          const onSend = (...args: unknown[]): unknown => runs++ % 2 === 0 ? hook(...args) : (args[3] as () => void)()
          app.post(`/${fail}/${j}`, { duplex: { onSend: true, ...options } as object, onSend: onSend as never, ...routeOptions }, handler)
        }
      }
      app.post('/after', { duplex: true, ...routeOptions }, async (_request, { duplex }) => { duplex.end('after') })
    })
    for (const fail of Object.keys(fails)) {
      for (const [j, writer] of Object.keys(WRITERS).entries()) {
        if (writer === 'an ordinary answer') continue
        const asked = await ask(`/${fail}/${j}`, LATER(kind))
        asked.end()
        t.equal(await asked.status(), 500, `${fail}: ${writer}`)
        t.match(await asked.body(), /hooked/, `${fail}: ${writer}`)
      }
    }
    const after = await ask('/after', LATER(kind))
    after.end()
    t.equal(await after.status(), 200)
    t.equal(await after.body(), 'after')
  })

  t.test(`${name}: the client leaves while a hook runs`, async (t) => {
    const entered: (() => void)[] = []
    const errors: unknown[] = []
    let failed = (): void => {}
    const hook = resolvers()
    const { app, ask, logged } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { duplex: { onSend: true }, onSend: async () => { entered.shift()!(); await hook.promise }, ...routeOptions }, (_request, { duplex }) => {
        duplex.write('a', (error) => { errors.push(error); failed() })
      })
    }, { plugin: { closeGrace: 0 } })
    const failure = new Promise<void>((resolve) => { failed = resolve })
    const wait = (): Promise<void> => new Promise((resolve) => { entered.push(resolve) })
    const inHook = wait()
    const left = await ask('/', LATER(kind))
    await inHook
    const line = logged('stream closed prematurely')
    left.reset()
    await line
    await failure
    t.type(errors[0], Error)
    await app.close()
  })

  t.test(`${name}: the app closes while a hook runs`, async (t) => {
    const inHook = resolvers()
    const failed = resolvers<Error | null | undefined>()
    const { app, ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { duplex: { onSend: true }, onSend: () => new Promise(() => { inHook.resolve() }), ...routeOptions }, (_request, { duplex }) => { duplex.write('a', failed.resolve) })
    }, { plugin: { closeGrace: 0 } })
    await ask('/', LATER(kind))
    await inHook.promise
    await app.close()
    t.match(await failed.promise, { code: 'FST_ERR_DUPLEX_CLOSING' })
  })
}

t.test('@fastify/cookie', async (t) => {
  const { app, connect } = await serve(t, 'tcp', async (app) => {
    await app.register(cookie)
    app.post('/', { duplex: true }, async function * (_request, reply) {
      reply.setCookie('a', '1')
      yield 'x'
    })
  }, { plugin: { onSend: true } })
  t.match(await (await connect()).request(chunked('/')), { statusCode: 200, body: 'x', headers: { 'set-cookie': ['a=1; SameSite=Lax'] } })
  t.match(await app.inject({ method: 'POST', url: '/' }), { body: 'x', headers: { 'set-cookie': 'a=1; SameSite=Lax' } })
})

t.test('@fastify/session', async (t) => {
  const { app, connect } = await serve(t, 'tcp', async (app) => {
    await app.register(cookie)
    await app.register(session, { secret: 'a secret of thirty-two characters', cookie: { secure: false } })
    app.post('/', { duplex: { onSend: true } }, async function * (request) {
      const count = (request.session.get('count') ?? 0) + 1
      request.session.set('count', count)
      yield String(count)
    })
  })
  const wire = await connect()
  const first = await wire.request(chunked('/'))
  t.match(first, { statusCode: 200, body: '1' })
  const [value] = String(first.headers['set-cookie']).split(';')
  t.match(value, /^sessionId=./)
  t.match(await wire.request(chunked('/').replace('\r\n', `\r\nCookie: ${value}\r\n`)), { statusCode: 200, body: '2' })
  t.match(await app.inject({ method: 'POST', url: '/', headers: { cookie: value } }), { statusCode: 200, body: '3' })
})

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: a hook that always fails, and one that never ends`, async (t) => {
    const seen: unknown[] = []
    const { ask, log } = await serveKind(t, kind, (app, routeOptions) => {
      const fail = async (): Promise<never> => { throw undefined } // eslint-disable-line no-throw-literal
      app.post('/fails', { duplex: { onSend: true }, onSend: fail, ...routeOptions }, (_request, { duplex }) => { duplex.write('x', (error) => { seen.push(error) }) })
      app.post('/handled', {
        duplex: { onSend: true },
        onSend: async (request) => { if (!request.headers.handled) throw new Error('hooked') },
        errorHandler: (error, request, { duplex }) => { request.headers.handled = 'yes'; duplex.end(error.message) },
        ...routeOptions
      }, (_request, { duplex }) => { duplex.end('x') })
      let runs = 0
      app.post('/silent', {
        duplex: { onSend: true, idleTimeout: 50 },
        onSend: async () => { if (runs++ === 0) await new Promise(() => {}) },
        ...routeOptions
      }, (_request, { duplex }) => { duplex.end() })
    })
    for (const [path, statusCode, body] of [['/fails', 500, /./], ['/handled', 200, /^hooked$/], ['/silent', 408, /FST_ERR_DUPLEX_IDLE/]] as const) {
      const asked = await ask(path, LATER(kind))
      asked.end()
      t.equal(await asked.status(), statusCode, path)
      t.match(await asked.body(), body, path)
    }
    t.match(seen, [{ code: 'FST_ERR_DUPLEX_DESTROYED' }])
    t.notOk(log.some(({ level }) => level > 50))
  })
}

t.test('a proxy waits for the hooks, too', async (t) => {
  const upstream = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, (_request, { duplex }) => { duplex.setTrailers({ 'x-sum': '1' }).pipe(duplex) })
  })
  const { connect } = await serve(t, 'tcp', async (app) => {
    const onSend = async (_request: FastifyRequest, reply: FastifyReply): Promise<void> => { for (let turns = 0; turns < 20; turns++) await immediate(); reply.header('x-hook', 'ran') }
    app.post('/', { duplex: { onSend: true }, onSend }, proxy({ upstream: `http://127.0.0.1:${upstream.port}` }))
  })
  const wire = await connect()
  for (const content of ['small', BIG]) {
    t.match(await wire.request(chunked('/', content, content)), { statusCode: 200, body: content + content, fields: { 'x-hook': 'ran' }, trailers: { 'x-sum': '1' } })
  }
})

t.test('on the wire', async (t) => {
  const onSend = async (_request: FastifyRequest, reply: FastifyReply): Promise<void> => { await immediate(); reply.header('x-hook', 'ran') }
  const codes = resolvers<unknown>()
  const { connect } = await serve(t, 'tcp', (app) => {
    const options = { duplex: { onSend: true }, onSend }
    app.get('/', options, async function * () { yield 'x' })
    app.get('/tunnel', options, (_request, reply) => {
      reply.code(101).header('upgrade', 'x')
      reply.duplex.pipe(reply.duplex)
    })
    app.get('/detach', options, (_request, { duplex }) => {
      duplex.write('x')
      try {
        duplex.detach()
      } catch (error) {
        duplex.end((error as Error).message)
      }
    })
    app.get('/information', options, (_request, { duplex }) => {
      duplex.writeInformation(103, { link: '</a>' })
      duplex.end('x')
      try {
        duplex.flushHeaders()
      } catch {}
    })
    app.get('/late', options, async (_request, { duplex }) => {
      duplex.write('x')
      return 'late'
    })
    let runs = 0
    app.get('/again', { ...options, onSend: (_request, _reply, _payload, done) => { runs++; done() } }, (_request, reply) => {
      reply.header('x-bad', '\n')
      try {
        reply.duplex.flushHeaders()
      } catch (error) {
        reply.duplex.end(`${(error as { code: string }).code} ${runs}`)
      }
    })
    app.get('/raw', { ...options, onSend: async (_request, reply) => { await immediate(); reply.raw.end('other'); await once(reply.raw, 'finish'); await immediate() } }, (_request, { duplex }) => { duplex.write('x', codes.resolve as never) })
    app.get('/field', options, (_request, reply) => { reply.header('x-bad', '\n').duplex.write('x', () => {}) })
  })
  const wire = await connect()
  t.match(await wire.request(GET('/').replace('GET', 'HEAD'), 'HEAD'), { statusCode: 200, body: '', fields: { 'x-hook': 'ran' } }, 'HEAD')
  wire.send(GET('/information'))
  t.match(await wire.head(), { statusCode: 103 })
  t.match(await wire.response(), { statusCode: 200, body: 'x', fields: { 'x-hook': 'ran' } })
  t.match(await wire.request(GET('/detach')), { body: /the onSend hooks are running/, fields: { 'x-hook': 'ran' } })
  t.match(await wire.request(GET('/field')), { statusCode: 500, body: /FST_ERR_DUPLEX_FIELD/ })
  t.match(await wire.request(GET('/late')), { statusCode: 500, body: /FST_ERR_DUPLEX_SENT_LATE/ })
  t.match(await wire.request(GET('/again')), { statusCode: 200, body: 'FST_ERR_DUPLEX_FIELD 1' }, 'once')
  t.match(await wire.request(GET('/raw')), { statusCode: 200, body: 'other' })
  t.match(await codes.promise, { code: 'FST_ERR_DUPLEX_DESTROYED' })
  t.match(await wire.request(GET('/')), { statusCode: 200, body: 'x' })
  wire.send(UPGRADE('/tunnel'))
  t.match(await wire.head(), { statusCode: 101, fields: { 'x-hook': 'ran' } })
  wire.send('through')
  t.equal(await wire.content(7), 'through')
})
