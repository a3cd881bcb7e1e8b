// One exchange from its claim to its end: half-close and loss, `request.signal`, closing the app, what is logged and
// published, and that nothing is left behind.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { finished, pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import { TruncatedError } from '../../lib/errors.ts'
import type { ExchangeEvent } from '../../types/index.d.ts'
import { collectGarbage, countObjects } from '../support/garbage.ts'
import { CUT_OFF, GET, LEFT, OPEN, chunk, chunked, serve } from '../support/wire.ts'

async function echo (request: FastifyRequest, reply: FastifyReply): Promise<void> {
  await pipeline(reply.duplex, reply.duplex)
}

for (const transport of ['tcp', 'tls'] as const) {
  t.test(`over ${transport}`, async (t) => {
    t.test('half-close', async (t) => {
      let finish!: () => void
      const { connect } = await serve(t, transport, (app) => {
        app.post('/', { duplex: true }, async (request, reply) => {
          for await (const chunk of reply.duplex) reply.duplex.write(chunk)
          await new Promise<void>((resolve) => { finish = resolve })
          t.match(request.signal.reason, { code: 'FST_ERR_DUPLEX_ABORTED' }, 'as Go cancels the context')
          reply.duplex.end('the rest')
        })
      })
      const wire = await connect()
      wire.socket.end(chunked('/', 'a'))
      await wire.head()
      t.equal(await wire.content(), 'a')
      for (let i = 0; i < 20; i++) await immediate()
      finish()
      t.equal(await wire.body(), 'the rest')
      await wire.ended
    })

    t.test('loss before the head', async (t) => {
      const seen: string[] = []
      const { connect, logged } = await serve(t, transport, (app) => {
        app.addHook('onResponse', async () => { seen.push('onResponse') })
        app.addHook('onSend', async () => { seen.push('onSend') })
        app.post('/', { duplex: true }, async (request, reply) => {
          seen.push('handler')
          for await (const chunk of reply.duplex) seen.push(String(chunk))
        })
        app.post('/hook', { duplex: true, preHandler: async (request) => { seen.push('hook'); await once(request.signal, 'abort') } }, echo)
      })
      for (const url of ['/', '/hook']) {
        const wire = await connect()
        const line = logged(LEFT)
        wire.send(OPEN(url) + chunk('a'))
        while (seen.at(-1) !== (url === '/' ? 'a' : 'hook')) await immediate()
        if (transport === 'tcp') wire.socket.resetAndDestroy()
        else wire.socket.destroy()
        await line
      }
      t.strictSame(seen, ['handler', 'a', 'onResponse', 'hook', 'onResponse'])
    })

    t.test('hooks and logs show the real end', async (t) => {
      const times: number[] = []
      const { connect, log } = await serve(t, transport, (app) => {
        app.addHook('onResponse', async (request, reply) => { times.push(reply.elapsedTime) })
        app.post('/', { duplex: true }, async (request, reply) => { await echo(request, reply.code(207)) })
      })
      const wire = await connect()
      wire.send(OPEN('/') + chunk('a'))
      await wire.head()
      t.strictSame(log.map((line) => line.msg).slice(-1), ['incoming request'])
      wire.send('0\r\n\r\n')
      await wire.body()
      await wire.request(GET('/none'))
      const completed = log.filter((line) => line.msg === 'request completed')
      t.match(completed[0], { res: { statusCode: 207 } })
      t.ok(completed[0].responseTime! >= times[0] && times[0] > 0)
      t.equal(times.length, 2)
    })

    t.test('closing the app', async (t) => {
      for (const forceCloseConnections of [true, 'idle']) {
        const reasons: unknown[] = []
        const tell: (() => void)[] = []
        const { app, connect, logged } = await serve(t, transport, (app) => {
          app.post('/polite', { duplex: true }, (request, reply) => {
            reply.duplex.write('talking')
            reply.duplex.once('shutdown', () => {
              reasons.push(request.signal.reason.code)
              reply.duplex.end(' and done')
            })
          })
          app.post('/deaf', { duplex: { closeGrace: 20 } }, (request, reply) => { reply.duplex.write('talking') })
          app.post('/silent', { duplex: { closeGrace: 20 } }, (request, reply) => { reply.duplex.resume() })
          app.post('/throws', { duplex: { closeGrace: 60_000 } }, (request, reply) => {
            reply.duplex.once('shutdown', () => { throw new Error('in a listener') })
            reply.duplex.flushHeaders()
          })
          const closing = async (): Promise<void> => { await new Promise<void>((resolve) => { tell.push(resolve) }) }
          app.post('/late', { duplex: { closeGrace: 60_000 }, preHandler: closing }, (request, reply) => {
            reply.duplex.once('shutdown', () => reply.duplex.end('late'))
          })
          app.post('/brief', { duplex: { closeGrace: 60_000 }, preHandler: closing }, (request, reply) => { reply.duplex.destroy() })
        }, { fastify: { forceCloseConnections, ...(forceCloseConnections === true ? {} : { pluginTimeout: 0 }) } })
        const polite = await connect()
        polite.send(chunked('/polite', 'a') + GET('/polite'))
        await polite.head()
        const throws = await connect()
        throws.send(OPEN('/throws'))
        await throws.head()
        const deaf = await connect()
        deaf.send(OPEN('/deaf'))
        await deaf.head()
        const silent = await connect()
        silent.send(OPEN('/silent'))
        const late = await connect()
        late.send(OPEN('/late'))
        const brief = await connect()
        brief.send(OPEN('/brief'))
        const idle = await connect()
        await idle.request(GET('/none'))
        const errored = logged('request errored')
        const closed = app.close()
        t.equal(await polite.body(), 'talking and done', 'a handler may send its last words')
        await polite.ended
        for (const resolve of tell) resolve()
        t.match(await late.response(), { body: 'late', fields: { connection: 'close' } }, 'an exchange that opens late is told too')
        t.match(await brief.response(), { statusCode: 500 })
        await t.rejects(deaf.body(), CUT_OFF, 'and is cut off when it does not')
        t.match(await errored, { err: { message: 'in a listener' } })
        await t.rejects(throws.body(), CUT_OFF, 'a listener that throws keeps nothing open')
        t.match(await silent.response(), { statusCode: 503, body: /FST_ERR_DUPLEX_CLOSING/, fields: { connection: 'close' } }, 'or answered where it had not begun')
        await closed
        await idle.ended
        t.strictSame(reasons, ['FST_ERR_DUPLEX_CLOSING'])
      }
    })
  })
}

t.test('request.signal aborts with the client and not otherwise', async (t) => {
  let signal: AbortSignal | undefined
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (request, reply) => {
      if (request.headers['x-early']) signal = request.signal
      reply.duplex.flushHeaders()
      signal ??= request.signal
      await pipeline(reply.duplex, reply.duplex)
    })
  }, { fastify: { logger: false } })
  for (const early of ['', 'X-Early: 1\r\n']) {
    signal = undefined
    const wire = await connect()
    await wire.request(chunked('/', 'a').replace('\r\n', `\r\n${early}`))
    await wire.request(GET('/none'))
    t.equal(signal!.aborted, false)
    signal = undefined
    wire.send(OPEN('/').replace('\r\n', `\r\n${early}`))
    await wire.head()
    const aborted = once(signal!, 'abort')
    wire.socket.resetAndDestroy()
    await aborted
    t.equal(signal!.aborted, true)
  }
})

t.test('10 000 exchanges on one connection leave nothing behind', async (t) => {
  let socket!: Socket
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, (request, reply) => {
      socket = request.socket
      reply.duplex.pipe(reply.duplex)
    })
    app.get('/plain', async () => 'plain')
  }, { fastify: { logger: false } })
  const wire = await connect()
  const events = ['data', 'end', 'error', 'close', 'timeout', 'drain', 'pause', 'resume', 'finish', 'readable'] as const
  const listeners = (): number[] => events.map((event) => socket.listenerCount(event))
  const some = chunked('/', 'x').repeat(100)
  const rounds = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      wire.send(some)
      for (let j = 0; j < 100; j++) if ((await wire.response()).body !== 'x') throw new Error('mixed')
    }
  }
  await rounds(50) // V8 has compiled the code by then
  const before = listeners()
  const objects = countObjects()
  const heapUsed = (): number => {
    collectGarbage()
    return process.memoryUsage().heapUsed
  }
  // V8's code and tables vary by 3 MB. A leak shows in every round, so the smallest growth counts.
  let growth = Infinity
  for (let i = 0; i < 4 && growth >= 2e6; i++) {
    const heap = heapUsed()
    await rounds(100)
    growth = heapUsed() - heap
  }
  t.strictSame(listeners(), before)
  const more = countObjects() - objects
  t.ok(more < 500, `${more} objects more`)
  t.ok(growth < 2e6, `grown by ${growth} bytes`) // as if each had left 200 bytes that are no objects
  t.equal((await wire.request(GET('/plain'))).body, 'plain')
})

t.test('diagnostics channels', async (t) => {
  const seen: [string, ExchangeEvent][] = []
  for (const name of ['start', 'head', 'finish', 'error']) {
    const listener = (event: unknown): void => { seen.push([name, event as ExchangeEvent]) }
    subscribe(`fastify-duplex.exchange.${name}`, listener)
    t.teardown(() => unsubscribe(`fastify-duplex.exchange.${name}`, listener))
  }
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, echo)
    app.post('/fail', { duplex: true }, (request, reply) => {
      reply.duplex.flushHeaders()
      throw new Error('why')
    })
  })
  const wire = await connect()
  await wire.request(chunked('/', 'abc'))
  t.match(seen, [
    ['start', { bytesRead: 0, framing: { request: 'chunked', response: undefined }, request: { url: '/' } }],
    ['head', { bytesRead: 3, bytesWritten: 0, framing: { response: 'chunked' } }],
    ['finish', { bytesRead: 3, bytesWritten: 3, duration: Number, error: undefined }]
  ])
  seen.length = 0
  await t.rejects(wire.request(OPEN('/fail')), CUT_OFF)
  t.match(seen.map(([name]) => name), ['start', 'head', 'error'])
  t.match(seen[2][1].error, { message: 'why' })
})

t.test('streams of the exchange end like any other', async (t) => {
  const ended: string[] = []
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (request, reply) => {
      const { duplex } = reply
      finished(duplex).then(() => ended.push('finished'), (error) => ended.push(error.code))
      duplex.on('close', () => ended.push('close'))
      if (request.headers['x-read']) duplex.resume()
      duplex.end('ok')
    })
  })
  const wire = await connect()
  await wire.request(chunked('/', 'abc').replace('\r\n', '\r\nX-Read: 1\r\n'))
  await wire.request(chunked('/'))
  await wire.request(GET('/none'))
  t.strictSame(ended.slice(0, 2).sort(), ['close', 'finished'])
})

for (const [name, end] of [['killed within its body', (socket: Socket) => { socket.end() }], ['there, and another connection has ended', (socket: Socket) => { socket.write(chunk('more')) }]] as const) {
  t.test(`the line in the log, if the client is ${name}`, async (t) => {
    const { connect, log, logged } = await serve(t, 'tcp', (app) => {
      app.post('/', { duplex: true }, async (_request, { duplex }) => {
        for await (const content of duplex) {
          if (String(content) === 'more') throw new TruncatedError()
          duplex.write('begun')
        }
      })
    })
    const message = name.startsWith('killed') ? LEFT : 'request errored'
    const line = logged(message)
    const wire = await connect()
    wire.send(OPEN('/') + chunk('one'))
    await wire.head()
    end(wire.socket)
    t.equal((await line).level, message === LEFT ? 30 : 50)
    await wire.ended
    t.equal(log.filter(({ msg }) => [LEFT, 'request errored', 'request completed'].includes(msg)).length, 1)
  })
}
