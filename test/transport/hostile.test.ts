// What a client can do with a few lines, against the server or against others on it, and what must not come of it.

import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import net, { type Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { MessageCarrier } from '../../lib/carrier/message.ts'
import { SocketCarrier } from '../../lib/carrier/socket.ts'
import { addLaterConstraint } from '../support/later-constraint.ts'
import { GET, OPEN, type Served, TLS, type Wire, chunk, serve, untilStuck } from '../support/wire.ts'

/** All that a handler can leave to the plugin. */
async function echo (_request: FastifyRequest, { duplex }: FastifyReply): Promise<void> {
  for await (const content of duplex) duplex.write(content)
  duplex.end()
}

/** More than the buffers of a connection hold. */
const BIG = Buffer.alloc(32 * 1024 * 1024)

/** The server's end of the connection. */
async function accepted (app: FastifyInstance, connect: () => Promise<Wire>): Promise<[Wire, Socket]> {
  const accepted = once(app.server, 'connection') as Promise<[Socket]>
  return [await connect(), (await accepted)[0]]
}

t.test('framing behind more field lines than Node keeps', async (t) => {
  const SMUGGLED = 'GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n'
  const framings = {
    length: `Content-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`,
    chunked: `Transfer-Encoding: chunked\r\n\r\n${chunk(SMUGGLED)}0\r\n\r\n`
  }
  for (const maxHeadersCount of [undefined, 40, 100]) {
    const kept = maxHeadersCount ?? 1000
    for (const [name, rest] of Object.entries(framings)) {
      // Node passes fields on in groups of 32: what it drops depends on where the limit falls in one.
      for (const before of [kept - 1, kept, kept + 22, kept + 200]) {
        await t.test(`${before} lines before ${name}, maxHeadersCount ${maxHeadersCount}`, async (t) => {
          const { app, connect, log } = await serve(t, 'tcp', (app) => {
            app.post('/', { duplex: true }, echo)
            app.get('/smuggled', async () => t.fail('smuggled'))
          })
          if (maxHeadersCount !== undefined) app.server.maxHeadersCount = maxHeadersCount
          const wire = await connect()
          wire.send('POST / HTTP/1.1\r\nHost: a\r\n' + 'a:\r\n'.repeat(before - 1) + rest)
          t.match(await wire.response(), { statusCode: 431 })
          await wire.ended
          t.ok(log.every(({ err }) => err === undefined || err.code === 'FST_ERR_DUPLEX_FIELD_LIMIT' || err.code === 'HPE_HEADER_OVERFLOW'))
        })
      }
      await t.test(`just as many lines as are kept, ${name}, maxHeadersCount ${maxHeadersCount}`, async (t) => {
        const { app, connect } = await serve(t, 'tcp', (app) => { app.post('/', { duplex: true }, echo) })
        if (maxHeadersCount !== undefined) app.server.maxHeadersCount = maxHeadersCount
        const wire = await connect()
        wire.send('POST / HTTP/1.1\r\nHost: a\r\n' + 'a:\r\n'.repeat(kept - 3) + rest)
        t.match(await wire.response(), { statusCode: 200, body: SMUGGLED })
      })
    }
  }

  await t.test('no limit', async (t) => {
    const { app, connect } = await serve(t, 'tcp', (app) => { app.post('/', { duplex: true }, echo) })
    app.server.maxHeadersCount = 0
    const wire = await connect()
    wire.send('POST / HTTP/1.1\r\nHost: a\r\n' + 'a:\r\n'.repeat(1100) + framings.length)
    t.match(await wire.response(), { statusCode: 200, body: SMUGGLED })
  })
})

t.test('requests without end', async (t) => {
  const ONE = 'POST /duplex HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n'
  const FLOOD = 4 * 1024 * 1024
  const READ = 256 * 1024
  /** What Node's parser has read of the connection before our reads begin, and one read of ours. */
  const HELD = 64 * 1024 + READ

  for (const transport of ['tcp', 'tls', 'unix'] as const) {
    await t.test(`${transport}: what is held does not grow with the answers`, async (t) => {
      let answer: () => void = () => t.fail()
      let answered = 0
      const { app, connect } = await serve(t, transport, (app) => {
        app.post('/duplex', { duplex: true }, async (_request, reply) => {
          await new Promise<void>((resolve) => { answer = resolve })
          reply.duplex.end('x')
          answered++
        })
      })
      const event = transport === 'tls' ? 'secureConnection' : 'connection'
      const server = once(app.server, event) as Promise<[Socket]>
      const wire = await connect()
      const [socket] = await server
      wire.send(ONE.repeat(FLOOD / ONE.length))
      // What TLS has decrypted of one read comes, wanted or not.
      const bound = transport === 'tls' ? HELD + READ : HELD
      for (let count = 0; count < 40; count++) {
        await untilStuck(() => socket.bytesRead)
        t.ok(socket.bytesRead <= bound, `${count} answers: ${socket.bytesRead}`)
        answer()
      }
      await untilStuck(() => answered)
      t.equal(answered, 40)
    })
  }

  await t.test('one exchange, then a turn for others', async (t) => {
    let turns = 0
    let exchanges = 0
    let most = 0
    const look = (): void => {
      turns++
      most = Math.max(most, exchanges)
      exchanges = 0
      if (turns < 200) setImmediate(look)
    }
    const { connect } = await serve(t, 'tcp', (app) => {
      app.post('/duplex', { duplex: true }, (_request, reply) => {
        exchanges++
        reply.duplex.end('x')
      })
    })
    const wire = await connect()
    t.equal((await wire.request(ONE)).body, 'x')
    wire.send(ONE.repeat(1000))
    setImmediate(look)
    for (let count = 0; count < 1000; count++) t.equal((await wire.response()).body, 'x')
    t.ok(most <= 2, `${most} exchanges in one turn`)
  })

  await t.test('ordinary requests on a connection that had an exchange', async (t) => {
    let requests = 0
    let most = 0
    let release: () => void = () => {}
    const released = new Promise<void>((resolve) => { release = resolve })
    const ORDINARY = GET('/ordinary')
    const { connect } = await serve(t, 'tcp', (app) => {
      app.post('/duplex', { duplex: true }, async (_request, reply) => {
        await released
        reply.duplex.end('x')
      })
      app.get('/ordinary', { logLevel: 'silent' }, (_request, reply) => {
        if (requests++ === 0) {
          setImmediate(() => {
            most = Math.max(most, requests)
            requests = 0
          })
        }
        reply.send('x')
      })
    })
    const wire = await connect()
    // Held behind the exchange: more than Node would read at a time.
    const count = Math.floor(3 * READ / ORDINARY.length)
    wire.send(ONE + ORDINARY.repeat(count))
    await immediate()
    release()
    for (let i = 0; i <= count; i++) {
      if ((await wire.response()).body !== 'x') t.fail()
    }
    t.ok(most > 100 && most <= 64 * 1024 / ORDINARY.length + 1, `${most} requests in one turn`)
  })

  await t.test('held behind an exchange, while the answers to what was held get stuck', async (t) => {
    const BODY = 'x'.repeat(1024)
    const { app, connect } = await serve(t, 'tcp', (app) => {
      app.post('/duplex', { duplex: true }, (_request, reply) => { reply.duplex.end('x') })
      app.get('/ordinary', { logLevel: 'silent' }, (_request, reply) => { reply.send(BODY) })
    })
    const [wire, socket] = await accepted(app, connect)
    const count = 10_000
    wire.socket.pause()
    wire.send(ONE + GET('/ordinary').repeat(count) + ONE)
    await untilStuck(() => socket.bytesRead + socket.bytesWritten)
    t.ok(socket.bytesRead < 2 * HELD, 'Node pauses the connection')
    wire.socket.resume()
    t.equal((await wire.response()).body, 'x')
    for (let i = 0; i < count; i++) {
      if ((await wire.response()).body !== BODY) t.fail()
    }
    t.equal((await wire.response()).body, 'x')
  })
})

// Apps whose responses Node writes, and raw ones. `request` sends one request and returns what it got.

interface Kind { options: object, routeOptions: object, http2?: boolean }

const KINDS: Record<string, Kind> = {
  raw: { options: {}, routeOptions: {} },
  'asynchronous constraint': { options: {}, routeOptions: { constraints: { later: 'yes' } } },
  h2c: { options: { http2: true }, routeOptions: {}, http2: true },
  h2: { options: { http2: true, https: { ...TLS, allowHTTP1: true } }, routeOptions: {}, http2: true }
}

/** Starts an app of one kind; `ask` opens a request, over the one connection it makes. */
async function start (t: Test, { options, routeOptions, http2: isHttp2 }: Kind, setup: (app: FastifyInstance, routeOptions: object) => unknown, pluginOptions: object = {}): Promise<Served & { ask: (path: string, fields?: Record<string, string>) => Promise<Asked> }> {
  const served = await serve(t, 'tcp', (app) => {
    if ('constraints' in routeOptions) addLaterConstraint(app)
    return setup(app, routeOptions)
  }, options, pluginOptions)
  if (!isHttp2) {
    const wire = await served.connect()
    return {
      ...served,
      async ask (path, fields = {}) {
        wire.send(`POST ${path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n${Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`)
        return {
          write: (content) => { wire.send(chunk(content)) },
          end: () => { wire.send('0\r\n\r\n') },
          nonsense: () => { wire.send('nonsense') },
          leave: () => { wire.socket.resetAndDestroy() },
          pause: () => { wire.socket.pause() },
          status: async () => (await wire.head()).statusCode,
          body: () => wire.body(),
          resetCode: () => undefined
        }
      }
    }
  }
  const session = http2.connect(`${'https' in options ? 'https' : 'http'}://127.0.0.1:${served.port}`, { rejectUnauthorized: false })
  session.on('error', () => {})
  t.teardown(() => session.destroy())
  return {
    ...served,
    async ask (path, fields = {}) {
      const stream = session.request({ ':path': path, ':method': 'POST', ...fields })
      const response = once(stream, 'response')
      response.catch(() => {})
      stream.on('error', () => {})
      return {
        write: (content) => { stream.write(content) },
        end: () => { stream.end() },
        nonsense: () => { stream.close(http2.constants.NGHTTP2_PROTOCOL_ERROR) },
        // Not the whole session: below Node 26 its end is not always seen over TLS, by Fastify alone either.
        leave: () => { stream.close(http2.constants.NGHTTP2_CANCEL) },
        pause: () => { stream.pause() },
        status: async () => Number((await response)[0][':status']),
        body: async () => Buffer.concat(await stream.toArray()).toString(),
        resetCode: () => stream.rstCode
      }
    }
  }
}

interface Asked {
  write: (content: string) => void
  end: () => void
  /** What can't be read on: a chunk that is none, or over HTTP/2 a reset. */
  nonsense: () => void
  leave: () => void
  /** Reads no more of the connection. */
  pause: () => void
  status: () => Promise<number>
  body: () => Promise<string>
  /** Of HTTP/2, once the body has failed. */
  resetCode: () => number | undefined
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: silence, where the app has hooks for it`, async (t) => {
    for (const style of ['async', 'callback'] as const) {
      for (const handler of ['waits', 'reads', 'writes', 'is stuck'] as const) {
        await t.test(`${style} hook, the handler ${handler}`, async (t) => {
          const hooks: string[] = []
          const { ask, logged } = await start(t, kind, (app, routeOptions) => {
            if (style === 'async') app.addHook('onTimeout', async (request) => { hooks.push(request.url) })
            else app.addHook('onTimeout', (request, _reply, done) => { hooks.push(request.url); done() })
            app.post('/', { ...routeOptions, duplex: { idleTimeout: 20 } }, async (_request, reply) => {
              if (handler === 'waits') await new Promise(() => {})
              if (handler === 'writes') reply.duplex.write('x')
              if (handler === 'is stuck') reply.duplex.write(BIG)
              await reply.duplex.toArray()
            })
            app.post('/next', { ...routeOptions, duplex: true }, echo)
          })
          const errored = logged('request errored')
          const silent = await ask('/')
          silent.write('x')
          if (handler === 'is stuck') silent.pause()
          t.match(await errored, { err: { code: 'FST_ERR_DUPLEX_IDLE' } })
          t.strictSame(hooks, ['/'])
        })
      }
    }
  })

  t.test(`${name}: heads and interim heads, once the client is gone or has sent nonsense`, async (t) => {
    for (const fault of ['leave', 'nonsense'] as const) {
      for (const style of ['reads', 'ignores'] as const) {
        await t.test(`${fault}, the handler ${style}`, async (t) => {
          let tried!: () => void
          const done = new Promise<void>((resolve) => { tried = resolve })
          const { ask } = await start(t, kind, (app, routeOptions) => {
            app.post('/', { ...routeOptions, duplex: true }, async (_request, reply) => {
              const { duplex } = reply
              asked.resolve()
              if (style === 'ignores') duplex.resume()
              else await duplex.toArray()
            })
            app.addHook('onRequest', async (request, reply) => {
              request.raw.on('close', () => {})
              const attempt = (): void => {
                t.doesNotThrow(() => {
                  const { duplex } = reply
                  t.equal(duplex.writeInformation(102), false)
                  duplex.flushHeaders()
                })
              }
              reply.duplex.once('close', () => {
                attempt()
                setImmediate(() => { attempt(); tried() })
              })
              reply.duplex.on('error', attempt)
            })
          })
          const asked = resolvers()
          const client = await ask('/')
          client.write('x')
          await asked.promise
          client[fault]()
          await done
        })
      }
    }
  })

  t.test(`${name}: interim heads, once the response is another's or the stream is closed`, async (t) => {
    let answer!: () => void
    const handled = resolvers()
    const { ask } = await start(t, kind, (app, routeOptions) => {
      app.addHook('onSend', async () => { await new Promise<void>((resolve) => { answer = resolve }) })
      app.post('/answered', { ...routeOptions, duplex: true }, (_request, reply) => {
        const { duplex } = reply
        reply.send('x')
        t.equal(duplex.writeInformation(102), false)
        t.doesNotThrow(() => duplex.flushHeaders())
        t.notOk(duplex.headersSent)
        setImmediate(() => answer())
      })
      app.post('/closed', { ...routeOptions, duplex: true }, async ({ raw }, { duplex }) => {
        const closed = once(duplex, 'close')
        const { stream } = raw as { stream?: http2.ServerHttp2Stream }
        stream?.close()
        if (stream === undefined) raw.socket.destroy()
        t.doesNotThrow(() => duplex.writeInformation(102))
        await closed.catch(() => {})
        handled.resolve()
      })
    })
    const answered = await ask('/answered')
    answered.end()
    t.equal(await answered.status(), 200)
    t.equal(await answered.body(), 'x')
    await ask('/closed')
    await handled.promise
  })

  t.test(`${name}: the README's /attach, asked without an offer`, async (t) => {
    const { ask } = await start(t, kind, (app, routeOptions) => {
      app.post('/attach', { ...routeOptions, duplex: true }, async (request, reply) => {
        if (request.headers.upgrade !== 'tcp') return reply.code(426).header('upgrade', 'tcp').header('Keep-Alive', 'timeout=1').send()
      })
      app.post('/raw', { ...routeOptions, duplex: true }, async (_request, reply) => {
        reply.hijack()
        reply.raw.setHeader('upgrade', 'tcp')
        reply.raw.writeHead(426, 'Upgrade Required', kind.http2 ? undefined : { 'content-length': '0' }).end()
      })
    })
    for (const path of ['/attach', '/raw']) {
      const client = await ask(path)
      client.end()
      t.equal(await client.status(), 426)
      await client.body()
    }
  })
}

t.test('a tunnel that fails while its end is on its way', async (t) => {
  // A socket that is shutting down cannot be reset: in which of these ticks it is, depends on Node.
  for (let ticks = 0; ticks < 8; ticks++) {
    const { app, connect } = await serve(t, 'tcp', (app) => {
      app.addHttpMethod('CONNECT')
      app.route({
        method: 'CONNECT',
        url: '*',
        duplex: true,
        async handler (_request, reply) {
          const { duplex } = reply
          duplex.end()
          for (let tick = 0; tick < ticks; tick++) await new Promise<void>((resolve) => process.nextTick(resolve))
          duplex.destroy(new Error('the target has sent a reset'))
        }
      })
    })
    const [wire, socket] = await accepted(app, connect)
    const closed = once(socket, 'close')
    wire.send('CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n')
    await closed
    t.equal(await new Promise((resolve) => app.server.getConnections((_error, count) => resolve(count))), 0, `after ${ticks} ticks`)
  }
})

t.test('a timer of the user, once the exchange is over', async (t) => {
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.addHook('onTimeout', async () => t.fail('nothing is late'))
    app.addHook('onResponse', async ({ socket }) => { socket.emit('timeout') })
    app.post('/', { duplex: true }, async (_request, { duplex }) => { duplex.end('x') })
  })
  const [wire] = await accepted(app, connect)
  t.equal((await wire.request('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab')).body, 'x')
  await immediate()
  t.equal((await wire.request('cPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n', 'POST')).body, 'x')
})

t.test('README: CONNECT to a target that ends its side and resets', async (t) => {
  const target = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {})
    socket.end()
    setImmediate(() => socket.resetAndDestroy())
  }).listen(0, '127.0.0.1')
  t.teardown(() => target.close())
  await once(target, 'listening')
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.addHttpMethod('CONNECT')
    app.route({
      method: 'CONNECT',
      url: '*',
      duplex: true,
      async handler (request, { duplex }) {
        const upstream = net.connect(request.authority!.port, request.authority!.host)
        await once(upstream, 'connect')
        await pipeline(upstream, duplex, upstream)
      }
    })
  }, { disableRequestLogging: true })
  const { port } = target.address() as net.AddressInfo
  const closed: Promise<unknown>[] = []
  app.server.on('connection', (socket: Socket) => { closed.push(new Promise((resolve) => socket.once('close', resolve))) })
  await Promise.all(Array.from({ length: 50 }, async () => {
    const wire = await connect()
    wire.send(`CONNECT 127.0.0.1:${port} HTTP/1.1\r\nHost: a\r\n\r\n`)
    await wire.ended
  }))
  t.equal(closed.length, 50)
  await Promise.all(closed)
})

for (const [name, kind] of Object.entries(KINDS).filter(([, { http2 }]) => http2)) {
  t.test(`${name}: many responses that are cut off, in every state`, async (t) => {
    const { ask } = await start(t, kind, (app) => {
      app.post('/', { duplex: true }, async (request, { duplex }) => {
        if (request.headers.fails === 'later') duplex.write('x'.repeat(1000))
        else duplex.flushHeaders()
        if (request.headers.fails !== 'first') await immediate()
        duplex.setTrailers({ a: 'b' })
        throw new Error('fails')
      })
    })
    for (let round = 0; round < 20; round++) {
      await Promise.all(['first', 'second', 'later'].flatMap((fails) => [true, false].map(async (ends) => {
        const stream = await ask('/', { fails })
        if (ends) stream.end()
        if (fails !== 'first') t.equal(await stream.status(), 200) // else it was never sent
        await t.rejects(stream.body())
        t.equal(stream.resetCode(), http2.constants.NGHTTP2_INTERNAL_ERROR)
      })))
    }
  })
}

for (const [name, kind] of Object.entries(KINDS).filter(([, { http2 }]) => !http2)) {
  t.test(`${name}: behind an ordinary response that is due`, async (t) => {
    /** Sends an ordinary request and one for an exchange behind it; both have been routed when it returns. */
    async function behind (t: Test, path: '/stuck' | '/slow', options: object, pluginOptions: object, ends = false): Promise<Behind> {
      const aborted = resolvers()
      const routed = resolvers()
      const over = resolvers<unknown>()
      const { app, connect } = await serve(t, 'tcp', (app) => {
        if ('constraints' in kind.routeOptions) addLaterConstraint(app)
        app.addHook('onResponse', async (request) => { if (request.url === '/') over.resolve(request) })
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
      }, { connectionTimeout: 0, ...options }, pluginOptions)
      const [wire, socket] = await accepted(app, connect)
      wire.socket.pause()
      wire.send(GET(path) + 'POST / HTTP/1.1\r\nHost: a\r\nBehind: yes\r\nContent-Length: 1\r\n\r\n')
      await routed.promise
      return { wire, socket, connect, aborted: aborted.promise, over: over.promise, closed: new Promise((resolve) => socket.once('close', resolve)) }
    }

    /** The slot of the exchange is free again. */
    async function isFree (t: Test, { connect }: Behind): Promise<void> {
      const next = await connect()
      t.match(await next.request('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx'), { statusCode: 200, body: 'x' })
    }

    for (const path of ['/stuck', '/slow'] as const) {
      await t.test(`${path}: the connectionTimeout is that of the ordinary request`, async (t) => {
        const both = await behind(t, path, { connectionTimeout: 60_000 }, {})
        t.equal(both.socket.timeout, 60_000)
        both.socket.emit('timeout')
        await Promise.all([both.closed, both.over, path === '/slow' && both.aborted])
        await isFree(t, both)
      })

      for (const leave of ['end', 'resetAndDestroy'] as const) {
        if (path === '/stuck' && leave === 'end') continue // which Node ends only when all of it has been read
        await t.test(`${path}: the client leaves by ${leave}`, async (t) => {
          const both = await behind(t, path, {}, {})
          both.wire.socket[leave]()
          await Promise.all([both.closed, both.over, path === '/slow' && both.aborted])
          await isFree(t, both)
        })
      }
    }

    await t.test('the app takes longer than the idleTimeout', async (t) => {
      const { prototype } = kind === KINDS.raw ? SocketCarrier : MessageCarrier
      const { onIdle } = prototype
      const looked = resolvers()
      t.intercept(prototype, 'onIdle', {
        value (this: SocketCarrier) {
          onIdle.call(this)
          looked.resolve()
        }
      })
      const both = await behind(t, '/slow', {}, { idleTimeout: 20 })
      await looked.promise
      await immediate()
      t.notOk(both.socket.destroyed)
    })

    await t.test('stuck for the idleTimeout: the exchange ends, and the ordinary response is still whole', async (t) => {
      const both = await behind(t, '/stuck', {}, { idleTimeout: 20 })
      await both.over
      await isFree(t, both)
      both.wire.socket.resume()
      await both.wire.head()
      let size = 0
      while (size < BIG.length) size += (await both.wire.content()).length
      t.equal(size, BIG.length)
      await both.wire.ended
    })

    await t.test('the handler ends the side of the server', async (t) => {
      const both = await behind(t, '/slow', {}, { idleTimeout: 20 }, true)
      both.wire.socket.resume()
      await both.wire.ended
      await both.over
      await both.closed
      await isFree(t, both)
    })
  })
}

interface Behind {
  wire: Wire
  socket: Socket
  connect: () => Promise<Wire>
  aborted: Promise<void>
  over: Promise<unknown>
  closed: Promise<unknown>
}

function resolvers<T = void> (): { promise: Promise<T>, resolve: (value: T) => void } {
  let resolve!: (value: T) => void
  const promise = new Promise<T>((_resolve) => { resolve = _resolve })
  return { promise, resolve }
}

t.test('what a handler gets is its own memory', async (t) => {
  const SECRET = 'Cookie: secret'
  const head = (path: string): string => `POST ${path} HTTP/1.1\r\nHost: a\r\n${SECRET}\r\nTransfer-Encoding: chunked\r\n\r\n`

  function own (t: Test, content: Buffer): void {
    t.equal(content.length, content.buffer.byteLength, 'nothing else is in it')
    structuredClone(content.buffer, { transfer: [content.buffer as ArrayBuffer] }) // and nobody else needs it
  }

  for (const [name, kind] of Object.entries(KINDS)) {
    await t.test(name, async (t) => {
      const { ask, connect } = await start(t, kind, (app, routeOptions) => {
        app.post('/', { ...routeOptions, duplex: true }, async (_request, { duplex }) => {
          duplex.on('data', (content: Buffer) => own(t, content))
          await once(duplex, 'end')
          duplex.end('x')
        })
      })
      if (kind.http2) {
        // Two streams at once: they may come in one read.
        const both = await Promise.all([ask('/'), ask('/')])
        for (const one of both) {
          one.write('abc')
          one.end()
        }
        for (const one of both) t.equal(await one.body(), 'x')
      } else {
        const wire = await connect()
        for (let i = 0; i < 3; i++) wire.send((head('/') + chunk('abc') + chunk('def') + '0\r\n\r\n').repeat(2))
        wire.send(`POST / HTTP/1.1\r\nHost: a\r\n${SECRET}\r\nContent-Length: 3\r\n\r\nabc`.repeat(2))
        for (let i = 0; i < 8; i++) t.equal((await wire.response()).body, 'x')
      }
    })
  }

  await t.test('what is left behind a head, detached', async (t) => {
    const { connect } = await serve(t, 'tcp', (app) => {
      app.post('/', { duplex: true }, async (_request, { duplex }) => {
        const { socket, head } = duplex.detach()
        t.equal(head.toString(), 'behind')
        own(t, head)
        socket.end('detached')
      })
    })
    const wire = await connect()
    wire.send(`POST / HTTP/1.1\r\nHost: a\r\n${SECRET}\r\nContent-Length: 0\r\n\r\nbehind`)
    await wire.ended
  })
})

t.test('who listens to the raw socket sees what was sent, and keeps it', async (t) => {
  for (const method of ['on', 'prependListener'] as const) {
    for (const transport of ['tcp', 'tls', 'unix'] as const) {
      await t.test(`${transport}, ${method}`, async (t) => {
        const seen: Buffer[] = []
        const { connect } = await serve(t, transport, (app) => {
          app.post('/', { duplex: true }, async (request, reply) => {
            request.socket[method]('data', (piece: Buffer) => { seen.push(piece) })
            reply.duplex.flushHeaders()
            await echo(request, reply)
          })
        })
        const wire = await connect()
        wire.send(OPEN('/'))
        await wire.head()
        const body = chunk('abc') + chunk('defg') + chunk('x'.repeat(100)) + '0\r\n\r\n'
        wire.send(body)
        t.equal(await wire.body(), 'abcdefg' + 'x'.repeat(100))
        t.equal(Buffer.concat(seen).toString(), body)
      })
    }
  }
})

t.test('CONNECT without a route for its target', async (t) => {
  for (const [name, setup] of Object.entries<(app: FastifyInstance) => void>({
    'a 404': () => {},
    'a 404 that takes its time': (app) => { app.setNotFoundHandler(async (_request, reply) => { await immediate(); return reply.code(404).send('x') }) },
    'a handler that hijacks it': (app) => { app.setNotFoundHandler((_request, reply) => { reply.hijack(); reply.raw.end('x') }) }
  })) {
    for (const framing of ['Content-Length: 35', 'Transfer-Encoding: chunked', 'X: y']) {
      await t.test(`${name}, ${framing}`, async (t) => {
        const { app, connect } = await serve(t, 'tcp', (app) => {
          app.addHttpMethod('CONNECT')
          app.route({ method: 'CONNECT', url: '/only/here', duplex: true, handler: echo })
          app.get('/smuggled', async () => t.fail('smuggled'))
          setup(app)
        })
        const [wire, socket] = await accepted(app, connect)
        const closed = new Promise((resolve) => socket.once('close', resolve))
        wire.send(`CONNECT a:1 HTTP/1.1\r\nHost: a\r\n${framing}\r\n\r\n` + GET('/smuggled'))
        const response = await wire.response()
        t.match(response, { fields: { connection: 'close' } })
        wire.send(GET('/smuggled'))
        await wire.ended
        wire.socket.end()
        await closed
      })
    }
  }
})

t.test('a handler that answers later than we do', async (t) => {
  for (const [name, kind] of Object.entries(KINDS).filter(([, { http2 }]) => !http2)) {
    for (const handled of ['by Fastify', 'by the app', 'by an app that fails'] as const) {
      for (const slow of ['onError', 'onSend'] as const) {
        for (const style of ['callback', 'promise', 'rejects'] as const) {
          await t.test(`${name}: ${style} handler, slow ${slow} hook, answered ${handled}`, async (t) => {
            const hooked = resolvers()
            const answered = resolvers()
            const { ask } = await start(t, kind, (app, routeOptions) => {
              app.addHook(slow, ((...args: any[]) => {
                hooked.resolve()
                const done = args.at(-1) as (error?: null, payload?: unknown) => void
                answered.promise.then(() => slow === 'onSend' ? done(null, args[2]) : done())
              }) as any)
              if (handled !== 'by Fastify') {
                app.setErrorHandler((_error, _request, reply) => {
                  if (handled === 'by an app that fails') throw Object.assign(new Error('fails'), { statusCode: 400 })
                  reply.code(400).send('by the app')
                })
              }
              app.post('/', routeOptions, async () => 'x')
              app.post('/late', { ...routeOptions, duplex: true }, (_request, reply) => {
                reply.duplex.resume()
                const late = hooked.promise.then(() => {
                  setImmediate(answered.resolve)
                  if (style === 'rejects') throw new Error('late')
                  if (style === 'promise') return 'late'
                  t.doesNotThrow(() => reply.code(403).send('late'))
                  return undefined
                })
                return style === 'callback' ? undefined : late
              })
            })
            const late = await ask('/late')
            late.nonsense()
            t.match(await late.status(), style === 'callback' && slow === 'onError' ? 400 : /40[03]/)
            t.notMatch(await late.body(), 'late')
          })
        }
      }
    }
  }
})

t.test('a response that somebody else ends', async (t) => {
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

t.test('CONNECT to a server that another stands behind', async (t) => {
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.addHttpMethod('CONNECT')
    app.route({ method: 'CONNECT', url: '*', duplex: true, handler: echo })
    app.post('/', { duplex: true }, echo)
    app.get('/smuggled', async () => t.fail('smuggled'))
  }, {
    serverFactory (onRequest: http.RequestListener) {
      const inner = http.createServer(onRequest)
      const outer = net.createServer({ allowHalfOpen: true }, (socket) => inner.emit('connection', socket))
      return Object.assign(outer, { setTimeout: () => outer, closeIdleConnections: () => {}, closeAllConnections: () => { inner.closeAllConnections() } })
    }
  })
  const [wire, socket] = await accepted(app, connect)
  t.match(await wire.request('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx'), { body: 'x' })
  const closed = new Promise((resolve) => socket.once('close', resolve))
  wire.send('CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n' + GET('/smuggled'))
  await closed
  await wire.ended
})

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: a response that ends while the rest of the request is unread and does not come`, async (t) => {
    const over = resolvers()
    const { ask } = await start(t, kind, (app, routeOptions) => {
      app.addHook('onResponse', async () => over.resolve())
      app.post('/', { ...routeOptions, duplex: { drainTimeout: 20 } }, async (_request, { duplex }) => {
        for await (const content of duplex) if (content.length > 0) break
        duplex.end('end')
      })
    })
    const client = await ask('/')
    client.write('x'.repeat(100_000))
    t.equal(await client.status(), 200)
    t.equal(await client.body(), 'end')
    await over.promise
  })
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: the client leaves while hooks run for an answer that has failed`, async (t) => {
    for (const style of ['promise', 'callback'] as const) {
      const running = resolvers()
      const over = resolvers()
      const goOn = resolvers()
      const { ask } = await start(t, kind, (app, routeOptions) => {
        app.addHook('onSend', (_request, _reply, _payload, done) => { done(new Error('of a hook')) })
        app.addHook('onError', (_request, _reply, _error, done) => {
          running.resolve()
          goOn.promise.then(() => done())
        })
        app.addHook('onResponse', async () => over.resolve())
        app.setErrorHandler(async (_error, _request, reply) => {
          await immediate()
          return reply.code(418).send('own')
        })
        app.post('/', {
          ...routeOptions,
          duplex: true,
          ...(style === 'promise'
            ? { handler: async (_request: FastifyRequest, reply: FastifyReply) => reply.code(403).send('no') }
            : { handler: (_request: FastifyRequest, reply: FastifyReply) => { reply.code(403).send('no') } })
        })
      })
      const client = await ask('/')
      client.write('x')
      await running.promise
      client.leave()
      await over.promise
      for (let turns = 0; turns < 5; turns++) await immediate()
      goOn.resolve()
      for (let turns = 0; turns < 5; turns++) await immediate()
    }
  })
}

t.test('asynchronous constraint: many exchanges behind a slow response, whose client leaves before they are routed', async (t) => {
  t.intercept(process, 'emitWarning', { value: (warning: Error) => t.fail(String(warning)) })
  const over: string[] = []
  const all = resolvers()
  const { app, connect } = await serve(t, 'tcp', (app) => {
    addLaterConstraint(app)
    app.addHook('onResponse', async (request) => {
      over.push(request.url)
      if (over.length === 40) all.resolve()
    })
    app.get('/slow', async () => { await new Promise(() => {}) })
    app.post('/:name', {
      constraints: { later: 'yes' },
      duplex: { maxExchanges: 20 },
      // Half of them are past this hook when the client leaves.
      async onRequest (request) { if (request.url.endsWith('late')) await new Promise((resolve) => socket.once('close', resolve)) },
      handler: echo
    })
  }, { keepAliveTimeout: 0 })
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

t.test('requests held behind an exchange, whose answers are congested', async (t) => {
  const ANSWER = 'x'.repeat(20_000)
  for (const ends of [false, true]) {
    await t.test(ends ? 'the client has ended its side' : 'the client waits', async (t) => {
      const { app, connect } = await serve(t, 'tcp', (app) => {
        app.post('/', { duplex: true }, async (_request, { duplex }) => {
          await duplex.toArray()
          duplex.end('ok')
        })
        app.get('/ordinary', { logLevel: 'silent' }, async () => ANSWER)
      }, { keepAliveTimeout: 0 })
      const [wire, socket] = await accepted(app, connect)
      const closed = new Promise((resolve) => socket.once('close', resolve))
      const body = 4_000_000 // which opens the window of TCP: what follows comes in one read
      wire.send(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${body + 1}\r\n\r\n`).send(Buffer.alloc(body))
      await untilStuck(() => socket.bytesRead)
      const count = 1000
      wire.send('z' + GET('/ordinary').repeat(count))
      if (ends) wire.socket.end()
      t.equal((await wire.response()).body, 'ok')
      if (!ends) {
        for (let i = 0; i < count; i++) if ((await wire.response()).body !== ANSWER) t.fail()
      } else {
        wire.socket.resume()
        await closed
      }
    })
  }
})

t.test('what is behind a head that upgrades, on a connection that had an exchange', async (t) => {
  const size = 150_000
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, (_request, { duplex }) => { duplex.end('ok') })
  })
  app.server.on('upgrade', (_request, socket: Socket, head: Buffer) => {
    let received = head.length
    const look = (): void => { if (received === size) socket.end(`got ${received}`) }
    socket.on('data', (piece) => { received += piece.length; look() })
    look()
  })
  const [wire, socket] = await accepted(app, connect)
  t.equal((await wire.request('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n')).body, 'ok')
  const answer = once(wire.socket, 'data')
  wire.send('GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n' + 'x'.repeat(size - 1000))
  await untilStuck(() => socket.bytesRead)
  wire.send('x'.repeat(1000))
  t.equal(String((await answer)[0]), `got ${size}`)
})

for (const [name, kind] of Object.entries(KINDS).filter(([, { http2 }]) => http2)) {
  t.test(`${name}: writes larger than a window`, async (t) => {
    const size = 3 * 1024 * 1024 + 5
    const failed = resolvers<unknown>()
    const { ask } = await start(t, kind, (app) => {
      app.post('/whole', { duplex: true }, (_request, { duplex }) => {
        duplex.write(Buffer.alloc(size))
        duplex.write('x'.repeat(10))
        setImmediate(() => duplex.end(Buffer.alloc(size)))
      })
      app.post('/left', { duplex: true }, (_request, { duplex }) => {
        duplex.on('error', () => {}).write(Buffer.alloc(size), failed.resolve)
      })
    })
    const whole = await ask('/whole')
    whole.end()
    t.equal((await whole.body()).length, 2 * size + 10)
    const left = await ask('/left')
    t.equal(await left.status(), 200)
    left.leave()
    t.match(await failed.promise, { code: 'FST_ERR_DUPLEX_ABORTED' })
  })
}
