// What becomes of exchanges and their connections when the app closes.

import { EventEmitter } from 'node:events'
import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import { setImmediate as immediate } from 'node:timers/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import duplex from '../../lib/index.ts'
import { type Start, startersOf } from '../support/http1.ts'
import { KINDS, serveKind } from '../support/kinds.ts'
import { GET, OPEN, type Wire, serve } from '../support/wire.ts'

const { tcp, tls, fallback } = startersOf(t)
const unix: Start = (t, setup, options) => serve(t, 'unix', setup, options)

const LAST_WORDS = 'bye '.repeat(512 * 1024)

const post = (path: string, size: number): string => `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: ${size}\r\n\r\n`

/** Resolves when the server has stopped listening. At that moment Node destroys the connections that look idle. */
async function stopped ({ server }: FastifyInstance): Promise<void> {
  while (server.listening) await immediate()
}

for (const forceCloseConnections of [true, 'idle']) {
  // Where Node reads and writes, it destroys all connections if that is asked for.
  for (const [kind, start] of Object.entries({ tcp, tls, unix, ...(forceCloseConnections === true ? {} : { fallback }) })) {
    const fastify = { forceCloseConnections }
    const plugin = { closeGrace: 60_000, drainTimeout: 60_000 }
    // Fits into the buffers of the kernel, and on Linux not into those of the client alone.
    const LONG = 'long '.repeat(process.platform === 'linux' && kind !== 'unix' ? 200_000 : 20_000)

    t.test(`last words behind an unread request, ${kind}, ${forceCloseConnections}`, async (t) => {
      const { app, connect } = await start(t, (app) => {
        app.post('/', { duplex: true }, (request, reply) => {
          reply.duplex.once('shutdown', () => reply.duplex.end(LAST_WORDS)).flushHeaders()
        })
      }, { fastify, plugin })
      const wire = await connect()
      wire.send(post('/', 400_000) + 'x'.repeat(200_000))
      await wire.head()
      const closed = app.close()
      t.equal((await wire.body()).length, LAST_WORDS.length)
      wire.socket.end()
      await closed
    })

    if (kind === 'fallback') continue // such a connection stays open, as with Fastify alone
    t.test(`a response whose request is still being dropped, ${kind}, ${forceCloseConnections}`, async (t) => {
      const { app, connect, logged } = await start(t, (app) => {
        app.post('/duplex', { duplex: true }, (request, reply) => { reply.duplex.end(LONG) })
        app.post('/answer', { duplex: true }, async (request, reply) => reply.code(403).send(LONG))
      }, { fastify, plugin })
      const dropping: Wire[] = []
      for (const path of ['/duplex', '/answer']) {
        const idle = await connect()
        const completed = logged('request completed')
        idle.send(post(path, 2) + 'x')
        t.match(await idle.response(), { body: LONG, fields: { connection: 'keep-alive' } })
        await completed
        t.match(await idle.send('x').request(GET('/none')), { statusCode: 404 }, 'an ordinary connection afterwards')
        const wire = await connect()
        wire.socket.pause()
        const completedToo = logged('request completed')
        wire.send(post(path, 3) + 'x')
        await completedToo
        dropping.push(wire)
      }
      const closed = app.close()
      await stopped(app)
      for (const wire of dropping) {
        wire.send('xx').socket.resume()
        t.match(await wire.response(), { body: LONG })
        await wire.ended
        wire.socket.end()
      }
      await closed
    })
  }
}

/** An exchange that ends in the last preClose hook of the app, which comes after the plugin's own. */
async function setUpHooks (app: FastifyInstance, routeOptions: object, order: string[]): Promise<void> {
  let end = (): void => {}
  app.post('/', { duplex: true, ...routeOptions }, (request, reply) => {
    reply.duplex.once('shutdown', () => { order.push('told') }).flushHeaders()
    end = () => { reply.duplex.end('last words') }
  })
  app.addHook('onResponse', async () => { order.push('ended') })
  app.addHook('preClose', async () => { order.push('hook of the app') })
  await app.register(async (child) => {
    child.addHook('preClose', async () => { order.push('hook of a child') }) // before there are children: Fastify 5.8 gives them the hook, too
    await child.register(async (grandchild) => {
      grandchild.addHook('preClose', (done) => {
        order.push('hook of a grandchild')
        setImmediate(() => {
          end()
          done()
        })
      })
    })
  })
}

const ORDER = ['told', 'hook of the app', 'hook of a child', 'hook of a grandchild', 'ended']

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`other preClose hooks run while the exchanges end, ${name}`, async (t) => {
    const order: string[] = []
    const { app, ask } = await serveKind(t, { ...kind, options: { ...kind.options, pluginTimeout: 0 } }, (app, routeOptions) => setUpHooks(app, routeOptions, order), { plugin: { closeGrace: 60_000 } })
    const exchange = await ask('/', { later: 'yes' })
    t.equal(await exchange.status(), 200)
    const closed = app.close()
    t.equal(await exchange.body(), 'last words')
    exchange.end()
    await closed
    t.strictSame(order, ORDER)
  })
}

t.test('other preClose hooks run while the exchanges end, app.inject()', async (t) => {
  const order: string[] = []
  const app = Fastify({ pluginTimeout: 0 })
  app.addHook('preClose', async () => { order.push('hook before the plugin') })
  await app.register(duplex, { closeGrace: 60_000 })
  await setUpHooks(app, {}, order)
  const response = await app.inject({ method: 'POST', url: '/', payload: new PassThrough(), payloadAsStream: true })
  const closed = app.close()
  t.equal(await text(response.stream()), 'last words')
  await closed
  t.strictSame(order, ['told', 'hook before the plugin', ...ORDER.slice(1)])
})

t.test('all registrations of an app tell their exchanges at the same time', async (t) => {
  const told = new EventEmitter()
  const before = async (app: FastifyInstance): Promise<void> => {
    for (const [path, other] of [['/a', '/b'], ['/b', '/a']]) {
      await app.register(async (child) => {
        await child.register(duplex, { closeGrace: 60_000 })
        child.post(path, { duplex: true }, (request, reply) => {
          told.once(other, () => { reply.duplex.end('last words') })
          reply.duplex.once('shutdown', () => setImmediate(() => told.emit(path))).flushHeaders()
        })
      })
    }
  }
  const { app, connect } = await tcp(t, () => {}, { before, fastify: { pluginTimeout: 0 } })
  const wires = [await connect(), await connect()]
  wires[0].send(OPEN('/a'))
  wires[1].send(OPEN('/b'))
  for (const wire of wires) await wire.head()
  const closed = app.close()
  for (const wire of wires) {
    t.equal(await wire.body(), 'last words')
    wire.socket.end()
  }
  await closed
})

t.test('each exchange of a closing app ends with an error of its own, without a stack', async (t) => {
  const reasons = new Set<unknown>()
  const { app, connect } = await tcp(t, (app) => {
    app.setErrorHandler((error: Error, request, reply) => {
      error.message = `${request.url}: ${error.message}` // as many error handlers do
      reply.send(error)
    })
    app.post('/*', { duplex: true }, (request, { duplex }) => {
      request.signal.addEventListener('abort', () => { reasons.add(request.signal.reason) })
      duplex.on('error', (error) => { reasons.add(error) })
    })
  }, { plugin: { closeGrace: 0 } })
  const wires = new Map([['/a', await connect()], ['/b', await connect()]])
  for (const [path, wire] of wires) wire.send(OPEN(path))
  while (app.duplex.exchanges().length < 2) await immediate()
  const closed = app.close()
  for (const [path, wire] of wires) t.match(await wire.response(), { statusCode: 503, body: `"message":"${path}: The server is closing"` })
  for (const wire of wires.values()) wire.socket.end()
  await closed
  t.match([...reasons], [{ code: 'FST_ERR_DUPLEX_CLOSING', stack: undefined }, { code: 'FST_ERR_DUPLEX_CLOSING', stack: undefined }])
  t.equal(reasons.size, 2)
})
