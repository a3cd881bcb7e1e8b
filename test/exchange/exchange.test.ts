// The exchange and what surrounds it: the connection's fate, half-close and loss, early answers, limits, closing the
// app, what is logged and published. Over plain TCP and TLS.

import { execFile, execFileSync } from 'node:child_process'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { EventEmitter, once } from 'node:events'
import type { Socket } from 'node:net'
import { finished, pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import { SocketCarrier } from '../../lib/carrier/socket.ts'
import { IdleWatch, type Watched } from '../../lib/carrier/idle-watch.ts'
import { progressOf } from '../../lib/net-internals.ts'
import type { ExchangeEvent } from '../../types/index.d.ts'
import { collectGarbage } from '../support/garbage.ts'
import { GET, OPEN, TLS, chunk, chunked, serve } from '../support/wire.ts'

const CUT_OFF = { code: 'FST_ERR_DUPLEX_TRUNCATED' }

async function echo (request: FastifyRequest, reply: FastifyReply): Promise<void> {
  await pipeline(reply.duplex, reply.duplex)
}

for (const transport of ['tcp', 'tls'] as const) {
  t.test(`over ${transport}`, async (t) => {
    t.test('persistence', async (t) => {
      const { connect, app } = await serve(t, transport, (app) => {
        app.post('/', { duplex: true }, echo)
        app.get('/', { duplex: true }, (request, reply) => reply.header('content-length', 2).duplex.end('ok'))
      }, { maxRequestsPerSocket: 3, keepAliveTimeout: 30_000 })
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

    t.test('order: responses come in the order of the requests, whoever is ready first', async (t) => {
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
          for await (const piece of reply.duplex) {
            seen += piece
            reply.duplex.write(piece)
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
      t.equal(wire.socket.bytesRead, transport === 'tcp' ? 0 : wire.socket.bytesRead, 'but not answered')
      wire.send('0\r\n\r\n' + GET('/third'))
      answerFirst('first')
      t.equal((await wire.response()).body, 'first')
      t.equal((await wire.head()).statusCode, 103)
      t.equal((await wire.response()).body, '<early>')
      t.equal((await wire.response()).body, 'third')
    })

    t.test('half-close', async (t) => {
      let finish!: () => void
      const { connect } = await serve(t, transport, (app) => {
        app.post('/', { duplex: true }, async (request, reply) => {
          for await (const piece of reply.duplex) reply.duplex.write(piece)
          await new Promise<void>((resolve) => { finish = resolve })
          t.equal(request.signal.aborted, false)
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
          for await (const piece of reply.duplex) seen.push(String(piece))
        })
        app.post('/hook', { duplex: true, preHandler: async (request) => { seen.push('hook'); await once(request.signal, 'abort') } }, echo)
      })
      for (const url of ['/', '/hook']) {
        const wire = await connect()
        const line = logged('request errored')
        wire.send(OPEN(url) + chunk('a'))
        while (seen.at(-1) !== (url === '/' ? 'a' : 'hook')) await immediate()
        if (transport === 'tcp') wire.socket.resetAndDestroy()
        else wire.socket.destroy()
        await line
      }
      t.strictSame(seen, ['handler', 'a', 'onResponse', 'hook', 'onResponse'])
    })

    t.test('an early answer arrives, and the connection goes on where little is left to read', async (t) => {
      const { connect } = await serve(t, transport, (app) => {
        app.post('/refused', { duplex: true, onRequest: async (request, reply) => reply.code(403).send('no') }, echo)
        app.post('/duplex', { duplex: true }, (request, reply) => { reply.code(403).duplex.end('no') })
        app.post('/later', { duplex: true }, async (request, reply) => {
          await once(reply.duplex.end('no'), 'finish')
        })
      }, {}, { drainLimit: 1000, drainTimeout: 60_000 })
      for (const url of ['/refused', '/duplex', '/later']) {
        const wire = await connect()
        wire.send(OPEN(url) + chunk('x'.repeat(400)))
        t.match(await wire.response(), { body: 'no', fields: { connection: 'keep-alive' } }, url)
        wire.send(chunk('x'.repeat(600)) + '0\r\n\r\n')
        t.match(await wire.request(chunked(url, 'x')), { body: 'no' }, `${url}: exactly the limit`)
        wire.send(OPEN(url) + chunk('x'.repeat(1001)) + '0\r\n\r\n' + GET('/'))
        t.match(await wire.response(), { body: 'no' }, url)
        await wire.ended
        t.equal(await wire.head().catch(() => 'nothing more'), 'nothing more', `${url}: beyond it, nothing that follows is answered`)

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
        t.equal(await wrong.head().catch(() => 'nothing more'), 'nothing more', `${url}: nor after what is no body`)
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

    t.test('a handler that reads on after its response', async (t) => {
      const sizes: Promise<number>[] = []
      const { connect } = await serve(t, transport, (app) => {
        const count = async ({ duplex }: FastifyReply): Promise<number> => {
          let size = 0
          for await (const piece of duplex) size += piece.length
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

    t.test('idleTimeout', async (t) => {
      let timeouts = 0
      const { connect, logged } = await serve(t, transport, (app) => {
        app.addHook('onTimeout', async () => { timeouts++ })
        app.post('/', { duplex: { idleTimeout: 20 } }, async (request, reply) => {
          reply.duplex.flushHeaders()
          await echo(request, reply)
        })
        app.post('/before', { duplex: { idleTimeout: 20 } }, echo)
      })
      for (const url of ['/', '/before']) {
        const wire = await connect()
        const line = logged('request errored')
        await t.rejects(wire.request(OPEN(url)), CUT_OFF, url)
        t.match(await line, { err: { code: 'FST_ERR_DUPLEX_IDLE' } })
      }
      t.equal(timeouts, 2)
    })

    t.test('one that failed while it is the turn of another', async (t) => {
      let answer = (): void => {}
      const { connect, logged } = await serve(t, transport, (app) => {
        app.get('/another', (request, reply) => { answer = () => reply.send('another') })
        app.post('/', { duplex: true }, (request, reply) => {
          reply.duplex.on('error', () => {})
          reply.duplex.on('data', () => {
            reply.duplex.flushHeaders()
            reply.duplex.destroy(new Error('no more'))
          })
        })
      }, {}, { drainLimit: 1000 })
      const errored = logged('request errored')
      const wire = await connect()
      wire.send(GET('/another') + OPEN('/') + chunk('a'))
      await errored
      wire.send(chunk('x'.repeat(5000)))
      for (let i = 0; i < 20; i++) await immediate()
      answer()
      t.equal((await wire.response()).body, 'another', 'does not cut that off')
      await wire.ended
    })

    t.test('idleTimeout waits while it is the turn of another', async (t) => {
      let answer!: (value: string) => void
      const { connect } = await serve(t, transport, (app) => {
        app.get('/slow', () => new Promise((resolve) => { answer = resolve }))
        app.post('/', { duplex: { idleTimeout: 1 } }, echo)
      })
      const { onIdle } = SocketCarrier.prototype
      t.intercept(SocketCarrier.prototype, 'onIdle', {
        value (this: SocketCarrier) {
          onIdle.call(this)
          answer('slow')
        }
      })
      const wire = await connect()
      wire.send(GET('/slow') + chunked('/', 'a'))
      t.equal((await wire.response()).body, 'slow')
      t.equal((await wire.response()).body, 'a')
    })

    t.test('maxExchanges', async (t) => {
      const { connect } = await serve(t, transport, (app) => {
        app.post('/a', { duplex: true }, echo)
        app.post('/b', { duplex: true }, echo)
        app.post('/own', { duplex: { maxExchanges: 1 } }, echo)
      }, {}, { maxExchanges: 2 })
      const open = await Promise.all(['/a', '/b', '/own'].map(async (url) => {
        const wire = await connect()
        wire.send(OPEN(url) + chunk('x'))
        await wire.head()
        return wire
      }))
      const wire = await connect()
      for (const url of ['/a', '/own']) {
        t.match(await wire.request(chunked(url, 'y')), { statusCode: 503, fields: { 'retry-after': '1' }, body: /FST_ERR_DUPLEX_TOO_MANY/ })
      }
      for (const one of open) one.send('0\r\n\r\n')
      await Promise.all(open.map((one) => one.body()))
      t.match(await wire.request(chunked('/a', 'y')), { statusCode: 200 })
      t.match(await wire.request(chunked('/own', 'y')), { statusCode: 200 })
    })

    t.test('connectionTimeout is for requests that Node reads', async (t) => {
      const { connect, app } = await serve(t, transport, (app) => {
        app.post('/', { duplex: true }, async (request, reply) => {
          t.equal(request.socket.timeout, 0, 'not here')
          await echo(request, reply)
        })
        app.get('/plain', async (request) => request.socket.timeout)
      }, { connectionTimeout: 20 })
      app.server.keepAliveTimeout = 0
      const wire = await connect()
      t.equal((await wire.request(GET('/plain'))).body, '20')
      t.equal((await wire.request(chunked('/', 'a'))).body, 'a')
      await wire.ended
    })

    t.test('neither requestTimeout nor headersTimeout ends an exchange', async (t) => {
      const { app, connect } = await serve(t, transport, (app) => { app.post('/', { duplex: true }, echo) },
        { http: { connectionsCheckingInterval: 10 }, ...(transport === 'tls' ? { https: { ...TLS, connectionsCheckingInterval: 10 } } : {}) })
      const wire = await connect()
      wire.send(OPEN('/') + chunk('a'))
      await wire.head()
      // Node reads them whenever it checks. The head of this request had all the time it needed.
      Object.assign(app.server, { headersTimeout: 10, requestTimeout: 20 })
      // The check runs: these come later, and go.
      for (let i = 0; i < 3; i++) {
        const slow = await connect()
        slow.send('POST / HT')
        t.equal((await slow.response()).statusCode, 408)
        await slow.ended
      }
      wire.send(chunk('b') + '0\r\n\r\n')
      t.equal(await wire.body(), 'ab')
    })

    t.test('hooks and logs tell the true end', async (t) => {
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
          app.post('/late', { duplex: true, preHandler: closing }, (request, reply) => {
            reply.duplex.once('shutdown', () => reply.duplex.end('late'))
          })
          app.post('/brief', { duplex: true, preHandler: closing }, (request, reply) => { reply.duplex.destroy() })
        }, { forceCloseConnections, ...(forceCloseConnections === true ? {} : { pluginTimeout: 0 }) })
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
        t.equal(await polite.body(), 'talking and done', 'a handler may finish its sentence')
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

t.test('what breaks a silence', async (t) => {
  /** A socket on which something has moved each time it is looked at, so many times. */
  class Looked extends EventEmitter implements Watched {
    looks = 0
    received = 0
    sent = 0
    queued = 0
    readonly moves: number
    readonly move: (socket: Looked) => void

    constructor (moves: number, move: (socket: Looked) => void) {
      super()
      this.moves = moves
      this.move = move
    }

    get bytesRead (): number {
      if (++this.looks <= this.moves) this.move(this)
      return this.received
    }

    get bytesWritten (): number {
      return this.sent
    }

    get _handle (): { writeQueueSize: number } {
      return { writeQueueSize: this.queued }
    }

    get progress (): number {
      return progressOf(this as unknown as Socket)
    }

    get isStuck (): boolean {
      return this.queued > 0
    }

    onIdle (): void {
      this.emit('timeout')
    }
  }

  const awake = setInterval(() => {}, 1000) // the watch keeps no process alive
  t.teardown(() => clearInterval(awake))
  const still = new Looked(0, () => {})
  const moving = [
    new Looked(20, (socket) => { socket.received++ }),
    new Looked(20, (socket) => { socket.sent++ }),
    new Looked(20, (socket) => { socket.queued-- })
  ]
  moving[2].queued = 100 // of which the kernel has taken some when it takes no more: that counts double
  const gone = new Looked(0, () => {})
  gone.on('timeout', () => t.fail('not watched any more'))
  const watch = new IdleWatch(4)
  for (const socket of [still, ...moving, gone]) watch.add(socket)
  watch.delete(gone)
  const looks = [still, ...moving].map(async (socket) => {
    await once(socket, 'timeout')
    return socket.looks
  })
  t.strictSame(await Promise.all(looks), [5, 24, 24, 28])
  await once(still, 'timeout')
  t.equal(still.looks % 4, 1, 'each silence counts anew')
  for (const socket of [still, ...moving]) watch.delete(socket)

  const unasked = new Looked(0, () => {})
  new IdleWatch(0).add(unasked)
  t.equal(unasked.looks, 0, 'no watch')
})

t.test('an exchange that is over before its connection is taken is not watched', async (t) => {
  t.intercept(IdleWatch.prototype, 'add', { value: () => t.fail('nobody would end that') })
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', {
      duplex: true,
      onRequest (request, reply, done) {
        reply.duplex.write('no')
        reply.duplex.destroy()
        done()
      }
    }, async () => {})
  })
  const wire = await connect()
  wire.send(OPEN('/'))
  await wire.ended
  t.pass('ended')
})

t.test('100 000 exchanges on one connection leave nothing behind', async (t) => {
  let socket!: Socket
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, (request, reply) => {
      socket = request.socket
      reply.duplex.pipe(reply.duplex)
    })
    app.get('/plain', async () => 'plain')
  }, { logger: false })
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
  await rounds(200) // also so that what is compiled is compiled
  const before = listeners()
  const heapUsed = (): number => {
    collectGarbage()
    return process.memoryUsage().heapUsed
  }
  // V8's own code and tables come and go by 3 MB at a time; what exchanges leave behind, they leave every time.
  let growth = Infinity
  for (let i = 0; i < 4 && growth >= 2e6; i++) {
    const heap = heapUsed()
    await rounds(1000)
    growth = heapUsed() - heap
  }
  t.strictSame(listeners(), before)
  // The smallest object left behind by each would be 2 MB; a listener or a timer is many times that.
  t.ok(growth < 2e6, `grown by ${growth} bytes`)
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
