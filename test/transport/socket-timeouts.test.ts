// Timeouts that the app sets with Node's own methods. As on an ordinary request, the app is told, and nothing ends if it listens.

import { once } from 'node:events'
import http2 from 'node:http2'
import type { FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import { type Start, startersOf } from '../support/http1.ts'
import { GET, OPEN, chunk, serve, LEFT } from '../support/wire.ts'

const starters: Record<string, Start> = { ...startersOf(t), unix: (t, setup, options) => serve(t, 'unix', setup, options) }

const TIMEOUT = 20

type Set = (request: FastifyRequest, reply: FastifyReply, onTimeout: () => void) => void

const WAYS: Record<string, Set> = {
  'request.raw.setTimeout()': ({ raw }, reply, onTimeout) => { raw.setTimeout(TIMEOUT, onTimeout) },
  'reply.raw.setTimeout()': (request, { raw }, onTimeout) => { raw.setTimeout(TIMEOUT, onTimeout) },
  'request.socket.setTimeout()': ({ raw, socket }, reply, onTimeout) => {
    socket.setTimeout(TIMEOUT)
    raw.on('timeout', onTimeout)
  },
  'server.setTimeout()': ({ server }, reply, onTimeout) => { server.server.once('timeout', onTimeout) }
}

/** Echoes, and tells the client of the first timeout. */
function handle (set: Set | null, request: FastifyRequest, reply: FastifyReply): void {
  const { duplex } = reply
  duplex.on('data', (content) => { duplex.write(content) }).on('end', () => { duplex.end() }).flushHeaders()
  set?.(request, reply, () => { if (!duplex.writableEnded) duplex.write('timeout ') })
}

for (const [kind, start] of Object.entries(starters)) {
  for (const [way, set] of Object.entries(WAYS)) {
    t.test(`${way}, ${kind}`, async (t) => {
      const { connect, log } = await start(t, (app) => {
        if (way.startsWith('server')) app.server.setTimeout(TIMEOUT)
        app.server.on('timeout', () => { if (!way.startsWith('server')) t.pass('the server emits it too') })
        app.post('/handler', { duplex: true }, (request, reply) => handle(set, request, reply))
        app.post('/hook', {
          duplex: true,
          onRequest (request, reply, done) {
            set(request, reply, () => { if (!reply.duplex.writableEnded) reply.duplex.write('timeout ') })
            done()
          }
        }, (request, reply) => handle(null, request, reply))
      }, { plugin: { idleTimeout: 60_000 } })
      const wire = await connect()
      for (const path of ['/handler', '/hook']) {
        wire.send(OPEN(path))
        t.equal((await wire.head()).statusCode, 200)
        t.match(await wire.content(8), /^timeout /)
        wire.send(chunk('and on') + '0\r\n\r\n')
        t.match(await wire.body(), /and on$/)
        t.equal((await wire.request(GET('/none'))).statusCode, 404)
      }
      t.notOk(log.some(({ msg }) => msg === 'request errored'))
    })
  }

  t.test(`idleTimeout ends what listens to other timeouts, ${kind}`, async (t) => {
    const { connect, logged } = await start(t, (app) => {
      app.post('/', { duplex: true }, (request, reply) => {
        request.raw.on('timeout', () => t.fail('not a timeout of Node'))
        handle(null, request, reply)
      })
    }, { plugin: { idleTimeout: 20 } })
    const wire = await connect()
    const errored = logged('request errored')
    wire.send(OPEN('/'))
    await wire.ended
    t.match(await errored, { err: { code: 'FST_ERR_DUPLEX_IDLE' } })
  })

  t.test(`a timeout to which nobody listens closes the connection, ${kind}`, async (t) => {
    const { connect, logged } = await start(t, (app) => {
      app.post('/', { duplex: true }, (request, reply) => {
        handle(null, request, reply)
        request.raw.setTimeout(TIMEOUT)
      })
    }, { plugin: { idleTimeout: 60_000 } })
    const wire = await connect()
    const over = logged(['tcp', 'tls', 'unix'].includes(kind) ? 'request errored' : LEFT) // there Node destroys the connection itself
    wire.send(OPEN('/'))
    await wire.ended
    await over
    t.equal((await wire.head()).statusCode, 200)
  })

  t.test(`a timeout behind an ordinary request, ${kind}`, async (t) => {
    let answer = (): void => {}
    const { app, connect } = await start(t, (app) => {
      app.get('/first', (request, reply) => { answer = () => { reply.send('first') } })
      app.post('/', { duplex: true }, async (request, reply) => {
        request.raw.setTimeout(TIMEOUT)
        await once(request.raw, 'timeout')
        app.server.emit('told')
        for await (const content of reply.duplex) reply.duplex.write(content)
        reply.duplex.end()
      })
    }, { plugin: { idleTimeout: 60_000 } })
    const told = once(app.server, 'told')
    const wire = await connect()
    wire.send(GET('/first') + OPEN('/'))
    await told
    wire.send(chunk('second') + '0\r\n\r\n')
    answer()
    t.match(await wire.response(), { body: 'first' })
    t.match(await wire.response(), { body: 'second' })
  })
}

t.test('over HTTP/2', async (t) => {
  const { port } = await serve(t, 'tcp', (app) => {
    for (const [way, set] of Object.entries(WAYS).slice(0, 2)) {
      app.post(`/${way.slice(0, 5)}`, { duplex: true }, (request, reply) => handle(set, request, reply))
    }
  }, { fastify: { http2: true }, plugin: { idleTimeout: 60_000 } })
  const session = http2.connect(`http://127.0.0.1:${port}`)
  t.teardown(() => session.destroy())
  for (const path of ['/reque', '/reply']) {
    const stream = session.request({ ':method': 'POST', ':path': path }).setEncoding('utf8')
    const [content] = await once(stream, 'data')
    t.equal(content, 'timeout ')
    stream.end('and on')
    t.match((await stream.toArray()).join(''), /and on$/)
  }
})
