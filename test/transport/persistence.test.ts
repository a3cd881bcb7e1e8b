// Several exchanges on one connection: whether it is kept, what is drained, and in which order responses come.

import { execFile, execFileSync } from 'node:child_process'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { FastifyReply, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { NodeTransport } from '../../lib/transport/node-pair.ts'
import { type CloseReason, type ConnectionState, reasonToClose } from '../../lib/transport/persistence.ts'
import { RawTransport } from '../../lib/transport/raw.ts'
import { KINDS, serveKind } from '../support/kinds.ts'
import { addLaterConstraint } from '../support/later-constraint.ts'
import { GET, OPEN, type ServeOptions, type Wire, accepted, chunk, chunked, resolvers, serve, untilStuck } from '../support/wire.ts'

async function echo (request: FastifyRequest, reply: FastifyReply): Promise<void> {
  await pipeline(reply.duplex, reply.duplex)
}

t.test('every reason to close', async (t) => {
  const kept: ConnectionState = {
    requestPersists: true,
    responseCloses: false,
    isMalformed: false,
    bodyIsRead: true,
    bodyIsWanted: false,
    awaitsContinue: false,
    bodyLength: 5,
    drainLimit: 10,
    drainHasFailed: false,
    isHalfClosed: false,
    isClosing: false,
    announced: null
  }
  const unread = { ...kept, bodyIsRead: false }
  const long = { ...unread, bodyLength: 11 }
  const cases: [ConnectionState, CloseReason | null][] = [
    [kept, null],
    [{ ...kept, announced: 'keep-alive' }, null],
    [unread, null],
    [{ ...long, bodyIsWanted: true }, null],
    [{ ...long, announced: 'keep-alive' }, null],
    [{ ...unread, awaitsContinue: true, bodyIsWanted: true }, null],
    [{ ...kept, bodyLength: 11, awaitsContinue: true }, null],
    [{ ...kept, requestPersists: false }, 'request'],
    [{ ...kept, responseCloses: true }, 'response'],
    [{ ...kept, isMalformed: true }, 'malformed'],
    [long, 'unread body'],
    [{ ...unread, awaitsContinue: true }, 'unread body'],
    [{ ...unread, awaitsContinue: true, announced: 'keep-alive' }, 'unread body'],
    [{ ...unread, bodyIsWanted: true, drainHasFailed: true }, 'unread body'],
    [{ ...kept, drainHasFailed: true }, 'unread body'],
    [{ ...kept, isHalfClosed: true }, 'half-closed'],
    [{ ...kept, isClosing: true }, 'closing'],
    [{ ...kept, announced: 'close' }, 'announced']
  ]
  for (const [state, reason] of cases) t.equal(reasonToClose(state), reason, JSON.stringify(state))
})

/** More than the buffers of a connection hold. */
const BIG = Buffer.alloc(32 * 1024 * 1024)

for (const transport of ['tcp', 'tls'] as const) {
  t.test(`over ${transport}`, async (t) => {
    t.test('persistence', async (t) => {
      const { connect, app } = await serve(t, transport, (app) => {
        app.post('/', { duplex: true }, echo)
        app.get('/', { duplex: true }, (request, reply) => reply.header('content-length', 2).duplex.end('ok'))
      }, { fastify: { maxRequestsPerSocket: 3, keepAliveTimeout: 30_000 } })
      const wire = await connect()
      t.match(await wire.request(chunked('/', 'a')), { fields: { connection: 'keep-alive', 'keep-alive': 'timeout=30, max=3' } })
      t.match(await wire.request('POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\na'), { body: 'a', fields: { connection: 'close', 'keep-alive': undefined } })
      await wire.ended
      t.comment('maxRequestsPerSocket')
      const three = await connect()
      for (const connection of ['keep-alive', 'keep-alive', 'close']) t.match(await three.request(chunked('/', 'a')), { body: 'a', fields: { connection } })
      await three.ended
      t.comment('HTTP/1.0')
      const expecting = await connect()
      t.match(await expecting.request('GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n'), { body: 'ok', fields: { connection: 'keep-alive' } })
      t.match(await expecting.request(GET('/')), { body: 'ok' }, 'a body that is empty needs no 100')
      const old = await connect()
      t.match(await old.request('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n'), { body: 'ok', fields: { connection: 'keep-alive' } })
      t.match(await old.request('GET / HTTP/1.0\r\n\r\n'), { body: 'ok', fields: { connection: 'close' } })
      await old.ended
      const older = await connect()
      t.match(await older.request('POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na'), { body: 'a', fields: { connection: 'close' } }, 'close-delimited')
      await older.ended
      t.comment('keepAliveTimeout')
      app.server.keepAliveTimeout = 1
      const idle = await connect()
      await idle.request(chunked('/', 'a'))
      await idle.ended
      app.server.keepAliveTimeout = 0
      const busy = await connect()
      t.match(await busy.request(chunked('/', 'a')), { fields: { 'keep-alive': undefined } })
      t.match(await busy.request(chunked('/', 'a')), { body: 'a' })
    })

    t.test('an early answer arrives, and the connection is kept, unless much is announced', async (t) => {
      const { connect } = await serve(t, transport, (app) => {
        app.post('/refused', { duplex: true, onRequest: async (request, reply) => reply.code(403).send('no') }, echo)
        app.post('/duplex', { duplex: true }, (request, reply) => { reply.code(403).duplex.end('no') })
        app.post('/later', { duplex: true }, async (request, reply) => {
          await once(reply.duplex.end('no'), 'finish')
        })
      }, { plugin: { drainLimit: 1000, drainTimeout: 60_000 } })
      for (const url of ['/refused', '/duplex', '/later']) {
        const wire = await connect()
        wire.send(OPEN(url) + chunk('x'.repeat(400)))
        t.match(await wire.response(), { body: 'no', fields: { connection: 'keep-alive' } }, url)
        wire.send(chunk('x'.repeat(600)) + '0\r\n\r\n')
        t.match(await wire.request(chunked(url, 'x')), { body: 'no' }, url)
        wire.send(OPEN(url))
        t.match(await wire.response(), { body: 'no', fields: { connection: 'keep-alive' } }, url)
        for (let i = 0; i < 100; i++) wire.send(chunk('x'.repeat(10_000)))
        wire.send('0\r\n\r\n')
        t.match(await wire.request(chunked(url, 'x')), { body: 'no' }, `${url}: beyond the limit, the promise is kept`)

        const long = await connect()
        t.match(await long.request(`POST ${url} HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n`), { body: 'no', fields: { connection: 'close' } }, `${url}: announced`)
        await long.ended
        const exact = await connect()
        t.match(await exact.request(`POST ${url} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n`), { body: 'no', fields: { connection: 'keep-alive' } })
        t.match(await exact.request('x'.repeat(1000) + chunked(url, 'x')), { body: 'no' })
        const wrong = await connect()
        t.match(await wrong.request(OPEN(url)), { body: 'no' })
        wrong.send('nonsense' + GET('/'))
        await wrong.ended
        t.equal(await wrong.head().catch(() => 'nothing more'), 'nothing more', `${url}: nor after an invalid body`)
        const gone = await connect()
        t.match(await gone.request(OPEN(url)), { body: 'no' })
        gone.socket.end('5\r\n')
        await gone.ended
      }
    })

    t.test('drainTimeout', async (t) => {
      const { connect } = await serve(t, transport, (app) => {
        app.post('/', { duplex: { drainTimeout: 1 } }, (request, reply) => reply.duplex.end('no'))
      })
      const wire = await connect()
      t.match(await wire.request(OPEN('/')), { body: 'no' })
      await wire.ended
    })

    t.test('a handler that continues reading after its response', async (t) => {
      const sizes: Promise<number>[] = []
      const { connect } = await serve(t, transport, (app) => {
        const count = async ({ duplex }: FastifyReply): Promise<number> => {
          let size = 0
          for await (const chunk of duplex) size += chunk.length
          return size
        }
        app.post('/', { duplex: true }, async (request, reply) => {
          reply.duplex.end('received')
          sizes.push(count(reply))
          await sizes.at(-1)
        })
      })
      const wire = await connect()
      t.match(await wire.request(OPEN('/')), { body: 'received' })
      wire.send(chunk('x'.repeat(200_000)) + '0\r\n\r\n')
      t.match(await wire.request(chunked('/', 'x'.repeat(200_000))), { body: 'received' })
      t.strictSame(await Promise.all(sizes), [200_000, 200_000])
    })

    t.test('responses come in the order of the requests', async (t) => {
      let answerFirst!: (value: string) => void
      let seen = ''
      let reading!: () => void
      const read = new Promise<void>((resolve) => { reading = resolve })
      const { connect } = await serve(t, transport, (app) => {
        app.get('/first', () => new Promise((resolve) => { answerFirst = resolve }))
        app.post('/second', { duplex: true }, async (request, reply) => {
          reply.duplex.writeInformation(103)
          reply.duplex.flushHeaders()
          reply.duplex.write('<')
          for await (const chunk of reply.duplex) {
            seen += chunk
            reply.duplex.write(chunk)
            reading()
          }
          reply.duplex.end('>')
        })
        app.get('/third', async () => 'third')
      })
      const wire = await connect()
      wire.send(GET('/first') + OPEN('/second') + chunk('early'))
      await read
      t.equal(seen, 'early', 'a request in the queue may be read')
      t.equal(wire.pending, 0, 'but not answered')
      wire.send('0\r\n\r\n' + GET('/third'))
      answerFirst('first')
      t.equal((await wire.response()).body, 'first')
      t.equal((await wire.head()).statusCode, 103)
      t.equal((await wire.response()).body, '<early>')
      t.equal((await wire.response()).body, 'third')
    })

    t.test('an exchange that fails while another response is due', async (t) => {
      let answer = (): void => {}
      const failed = resolvers()
      const { connect } = await serve(t, transport, (app) => {
        app.get('/another', (request, reply) => { answer = () => reply.send('another') })
        app.post('/', { duplex: true }, (request, reply) => {
          reply.duplex.on('error', () => {})
          reply.duplex.on('data', () => {
            reply.duplex.flushHeaders()
            reply.duplex.destroy(new Error('no more'))
            failed.resolve()
          })
        })
      }, { plugin: { drainLimit: 1000 } })
      const wire = await connect()
      wire.send(GET('/another') + OPEN('/') + chunk('a'))
      await failed.promise
      wire.send(chunk('x'.repeat(5000)))
      for (let i = 0; i < 20; i++) await immediate()
      answer()
      t.equal((await wire.response()).body, 'another', 'does not cut that off')
      t.match(await wire.response(), { statusCode: 500, body: /no more/ }, 'and nothing of its head was sent')
      await wire.ended
    })

    t.test('idleTimeout does not apply while another response is due', async (t) => {
      let answer!: (value: string) => void
      const { connect } = await serve(t, transport, (app) => {
        app.get('/slow', () => new Promise((resolve) => { answer = resolve }))
        app.post('/', { duplex: { idleTimeout: 1 } }, echo)
      })
      const { onIdle } = RawTransport.prototype
      t.intercept(RawTransport.prototype, 'onIdle', {
        value (this: RawTransport) {
          onIdle.call(this)
          answer('slow')
        }
      })
      const wire = await connect()
      wire.send(GET('/slow') + chunked('/', 'a'))
      t.equal((await wire.response()).body, 'slow')
      t.equal((await wire.response()).body, 'a')
    })
  })
}

t.test('a 403 to a 50 MB upload arrives, 100 times in 100', async (t) => {
  try {
    execFileSync('curl', ['--version'])
  } catch {
    t.comment('SKIPPED: curl is not installed')
    return
  }
  const { port, log } = await serve(t, 'tcp', (app) => {
    app.post('/hook', { duplex: true, onRequest: async (request, reply) => reply.code(403).header('connection', 'close').send('no') }, echo)
    app.post('/duplex', { duplex: true }, (request, reply) => { reply.code(403).header('connection', 'close').duplex.end('no') })
  })
  const { mkdtemp, rm, writeFile } = await import('node:fs/promises')
  const { tmpdir } = await import('node:os')
  const directory = await mkdtemp(`${tmpdir()}/fastify-duplex-`)
  t.teardown(() => rm(directory, { recursive: true }))
  await writeFile(`${directory}/50MB`, Buffer.alloc(50e6))
  const curl = promisify(execFile)
  const answers = new Map<string, number>()
  for (let i = 0; i < 50; i++) {
    for (const url of ['/hook', '/duplex']) {
      const { stdout } = await curl('curl', ['-s', '-H', 'Expect:', '-w', ' %{http_code}', '--data-binary', `@${directory}/50MB`, `http://127.0.0.1:${port}${url}`]).catch((error) => ({ stdout: String(error.code) }))
      answers.set(stdout, (answers.get(stdout) ?? 0) + 1)
    }
  }
  t.strictSame([...answers], [['no 403', 100]])
  t.equal(log.filter((line) => line.level > 30).length, 0)
})

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: a response that ends while the rest of the request is unread and never sent`, async (t) => {
    const responded = resolvers()
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.addHook('onResponse', async () => responded.resolve())
      app.post('/', { ...routeOptions, duplex: { drainTimeout: 20 } }, async (_request, { duplex }) => {
        for await (const content of duplex) if (content.length > 0) break
        duplex.end('end')
      })
    })
    const client = await ask('/')
    client.write('x'.repeat(100_000))
    t.equal(await client.status(), 200)
    t.equal(await client.body(), 'end')
    await responded.promise
  })
}

t.test('a response that is ended with reply.raw', async (t) => {
  for (const [name, behind, waits] of [['in its turn', false, false], ['before its turn', true, false], ['in its turn, the head before', true, true]] as const) {
    await t.test(name, async (t) => {
      let answer!: (content: string) => void
      const { connect } = await serve(t, 'tcp', (app) => {
        app.get('/ordinary', async () => new Promise((resolve) => { answer = resolve }))
        app.post('/', { duplex: true }, async (_request, reply) => {
          reply.duplex.write('some')
          await immediate()
          if (waits) {
            answer('ordinary')
            await once(reply.raw, 'socket')
          }
          t.equal(reply.raw.end(), reply.raw)
          await immediate()
          if (!waits) answer?.('ordinary')
          await once(reply.duplex, 'close')
        })
      })
      const wire = await connect()
      wire.send((behind ? GET('/ordinary') : '') + 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n' + GET('/ordinary'))
      if (behind) t.equal((await wire.response()).body, 'ordinary')
      await wire.head()
      await t.rejects(wire.body(), { code: 'FST_ERR_DUPLEX_TRUNCATED' })
    })
  }
})

for (const [name, kind] of Object.entries(KINDS).filter(([, { http2 }]) => !http2)) {
  t.test(`${name}: behind an ordinary response`, async (t) => {
    /** Sends an ordinary request, and a duplex one behind it. Resolves when both are routed. */
    async function behind (t: Test, path: '/stuck' | '/slow', { fastify, plugin, ends = false }: ServeOptions & { ends?: boolean } = {}): Promise<Behind> {
      const aborted = resolvers()
      const routed = resolvers()
      const responded = resolvers<unknown>()
      const { app, connect } = await serve(t, 'tcp', (app) => {
        if ('constraints' in kind.routeOptions) addLaterConstraint(app)
        app.addHook('onResponse', async (request) => { if (request.url === '/') responded.resolve(request) })
        const onRequest = async (request: FastifyRequest): Promise<void> => { request.signal.addEventListener('abort', () => aborted.resolve()) }
        app.get('/stuck', { onRequest }, async () => BIG)
        app.get('/slow', { onRequest }, async () => { await new Promise(() => {}) })
        app.post('/', {
          ...kind.routeOptions,
          duplex: { maxExchanges: 1 },
          async handler (request, reply) {
            if (ends && request.headers.behind) request.socket.end()
            routed.resolve()
            await echo(request, reply)
          }
        })
      }, { fastify: { connectionTimeout: 0, ...fastify }, plugin })
      const [wire, socket] = await accepted(app, connect)
      wire.socket.pause()
      wire.send(GET(path) + 'POST / HTTP/1.1\r\nHost: a\r\nBehind: yes\r\nContent-Length: 1\r\n\r\n')
      await routed.promise
      return { wire, socket, connect, aborted: aborted.promise, responded: responded.promise, closed: new Promise((resolve) => socket.once('close', resolve)) }
    }

    /** The exchange no longer counts for maxExchanges. */
    async function releasesSlot (t: Test, { connect }: Behind): Promise<void> {
      const next = await connect()
      t.match(await next.request('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx'), { statusCode: 200, body: 'x' })
    }

    for (const path of ['/stuck', '/slow'] as const) {
      await t.test(`${path}: the connectionTimeout is that of the ordinary request`, async (t) => {
        const both = await behind(t, path, { fastify: { connectionTimeout: 60_000 } })
        t.equal(both.socket.timeout, 60_000)
        both.socket.emit('timeout')
        await Promise.all([both.closed, both.responded, path === '/slow' && both.aborted])
        await releasesSlot(t, both)
      })

      for (const leave of ['end', 'resetAndDestroy'] as const) {
        if (path === '/stuck' && leave === 'end') continue // Node ends such a connection only when all of the response is read
        await t.test(`${path}: the client leaves by ${leave}`, async (t) => {
          const both = await behind(t, path)
          both.wire.socket[leave]()
          await Promise.all([both.closed, both.responded, path === '/slow' && both.aborted])
          await releasesSlot(t, both)
        })
      }
    }

    await t.test('the app takes longer than the idleTimeout to answer', async (t) => {
      const { prototype } = kind === KINDS.raw ? RawTransport : NodeTransport
      const { onIdle } = prototype
      const looked = resolvers()
      t.intercept(prototype, 'onIdle', {
        value (this: RawTransport) {
          onIdle.call(this)
          looked.resolve()
        }
      })
      const both = await behind(t, '/slow', { plugin: { idleTimeout: 20 } })
      await looked.promise
      await immediate()
      t.notOk(both.socket.destroyed)
    })

    await t.test('an ordinary response that is stuck for the idleTimeout: the exchange ends, the response is still complete', async (t) => {
      const both = await behind(t, '/stuck', { plugin: { idleTimeout: 20 } })
      await both.responded
      await releasesSlot(t, both)
      both.wire.socket.resume()
      await both.wire.head()
      let size = 0
      while (size < BIG.length) size += (await both.wire.content()).length
      t.equal(size, BIG.length)
      await both.wire.ended
    })

    await t.test('the handler ends the side of the server', async (t) => {
      const both = await behind(t, '/slow', { plugin: { idleTimeout: 20 }, ends: true })
      both.wire.socket.resume()
      await both.wire.ended
      await both.responded
      await both.closed
      await releasesSlot(t, both)
    })
  })
}

interface Behind {
  wire: Wire
  socket: Socket
  connect: () => Promise<Wire>
  aborted: Promise<void>
  responded: Promise<unknown>
  closed: Promise<unknown>
}

t.test('between ordinary responses that are slow', async (t) => {
  let released = resolvers()
  const written = resolvers()
  const { app, connect, logged } = await serve(t, 'tcp', (app) => {
    app.get('/slow', async () => { await released.promise; return 'slow' })
    app.post('/empty-write', { duplex: true }, async (_request, reply) => {
      reply.duplex.write('a')
      await immediate()
      reply.duplex.write('')
      reply.duplex.end()
      written.resolve()
    })
    app.post('/fails', { duplex: true }, async (_request, reply) => {
      reply.duplex.flushHeaders()
      throw new Error('fails')
    })
  })
  const wire = await connect()
  wire.send(GET('/slow') + chunked('/empty-write') + GET('/slow'))
  await written.promise
  released.resolve()
  t.equal((await wire.response()).body, 'slow')
  t.equal((await wire.response()).body, 'a', 'an empty write does not end the body twice')
  t.equal((await wire.response()).body, 'slow')

  released = resolvers()
  wire.send(GET('/slow') + OPEN('/fails'))
  await logged('fails')
  released.resolve()
  t.equal((await wire.response()).body, 'slow', 'an exchange that fails in the queue leaves the response before it alone')
  t.match(await wire.response(), { statusCode: 500, body: /fails/ })
  await wire.ended
  t.equal(app.server.listening, true)
})

t.test('asynchronous constraint: many exchanges behind a slow response, whose client leaves before they are routed', async (t) => {
  t.intercept(process, 'emitWarning', { value: (warning: Error) => t.fail(String(warning)) })
  const responded: string[] = []
  const all = resolvers()
  const { app, connect } = await serve(t, 'tcp', (app) => {
    addLaterConstraint(app)
    app.addHook('onResponse', async (request) => {
      responded.push(request.url)
      if (responded.length === 40) all.resolve()
    })
    app.get('/slow', async () => { await new Promise(() => {}) })
    app.post('/:name', {
      constraints: { later: 'yes' },
      duplex: { maxExchanges: 20 },
      // Half of them are past this hook when the client leaves.
      async onRequest (request) { if (request.url.endsWith('late')) await new Promise((resolve) => socket.once('close', resolve)) },
      handler: echo
    })
  }, { fastify: { keepAliveTimeout: 0 } })
  const [wire, socket] = await accepted(app, connect)
  socket.setMaxListeners(100)
  const close = new Promise((resolve) => socket.once('close', resolve))
  wire.send(GET('/slow') + ['early', 'late'].map((name) => `POST /${name} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n`).join('').repeat(20))
  await untilStuck(() => socket.bytesRead)
  t.ok(socket.listenerCount('close') < 40)
  wire.socket.resetAndDestroy()
  await close
  await all.promise
})
