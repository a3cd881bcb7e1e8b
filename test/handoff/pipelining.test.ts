// Requests before and behind an exchange. Those behind it are held while it runs, in order, and in bounded memory.

import { once } from 'node:events'
import net, { type Socket } from 'node:net'
import { setImmediate as immediate } from 'node:timers/promises'
import t from 'tap'
import { GET, OPEN, TRANSPORTS, accepted, chunk, chunked, serve, untilStuck } from '../support/wire.ts'
import { BIG, routes } from './routes.ts'

for (const transport of TRANSPORTS) {
  t.test(`over ${transport}`, async (t) => {
    const { app, connect } = await serve(t, transport, routes)

    await t.test('pipelined in one segment', async (t) => {
      const wire = await connect()
      wire.send([GET('/plain'), chunked('/echo', 'one'), GET('/hello'), chunked('/slow-hooks', 'two'), chunked('/echo', 'three'), GET('/plain')].join(''))
      for (const body of ['plain', 'one', 'hello', 'two', 'three', 'plain']) t.equal((await wire.response()).body, body)
    })

    await t.test('behind congested responses that make Node pause, after an exchange', async (t) => {
      let socket!: net.Socket
      app.server.once(transport === 'tls' ? 'secureConnection' : 'connection', (connected) => { socket = connected })
      const wire = await connect()
      t.equal((await wire.request(chunked('/echo', 'a'))).body, 'a')
      wire.socket.removeAllListeners('data').pause()
      wire.send(GET('/big').repeat(2)) // Windows takes a single write of any size at once
      while (!socket.writableNeedDrain) await immediate()
      const paused = once(socket, 'pause')
      wire.send(GET('/plain').repeat(5000)) // more than one record of TLS
      await paused
      wire.send('GET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
      const chunks: Buffer[] = []
      for await (const chunk of wire.socket) chunks.push(chunk)
      t.equal(String(Buffer.concat(chunks)).split('\r\n\r\nplain').length, 1 + 5001)
    })

    await t.test('behind a response that makes Node pause, in one segment', async (t) => {
      const wire = await connect()
      for (const before of ['', chunked('/echo', 'x')]) {
        if (before !== '') t.equal((await wire.request(before)).body, 'x')
        wire.send(GET('/big') + OPEN('/echo'))
        t.equal((await wire.response()).body.length, BIG.length)
        wire.send(chunk('after'))
        await wire.head()
        t.equal(await wire.content(5), 'after')
        wire.send('0\r\n\r\n')
        t.equal(await wire.body(), '')
        t.equal((await wire.request(GET('/plain'))).body, 'plain')
      }
    })
  })
}

t.test('behind a response that is stuck', async (t) => {
  const { connect } = await serve(t, 'tcp', routes)
  const wire = await connect()
  wire.socket.pause()
  wire.send(GET('/big'))
  while (wire.socket.readableLength === 0) await immediate()
  wire.send(chunked('/echo', 'after') + GET('/plain'))
  for (let i = 0; i < 20; i++) await immediate()
  wire.socket.resume()
  t.equal((await wire.response()).body.length, BIG.length)
  t.equal((await wire.response()).body, 'after')
  t.equal((await wire.response()).body, 'plain')
})

t.test('before responses that get stuck', async (t) => {
  const { app, connect } = await serve(t, 'tcp', routes)
  const server = once(app.server, 'connection') as Promise<[net.Socket]>
  const wire = await connect()
  const [socket] = await server
  wire.socket.pause()
  // More than one read is held back while the hooks of the first take their time, and Node pauses in the middle of it.
  wire.send(chunked('/slow-hooks', 'before') + GET('/big') + GET('/big'))
  while (socket.bytesRead === 0) await immediate()
  wire.send(GET('/big'))
  while (wire.socket.readableLength === 0) await immediate()
  wire.send(GET('/plain') + chunked('/echo', 'after'))
  for (let i = 0; i < 20; i++) await immediate()
  wire.socket.resume()
  t.equal((await wire.response()).body, 'before')
  for (let i = 0; i < 3; i++) t.equal((await wire.response()).body.length, BIG.length)
  t.equal((await wire.response()).body, 'plain')
  t.equal((await wire.response()).body, 'after')
})

t.test('endless pipelined requests', async (t) => {
  const ONE = 'POST /duplex HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n'
  const FLOOD = 4 * 1024 * 1024
  const READ = 256 * 1024
  /** What Node's parser has read before our reads begin, and one read of ours. */
  const HELD = 64 * 1024 + READ

  for (const transport of ['tcp', 'tls', 'unix'] as const) {
    await t.test(`${transport}: the bytes held do not grow with the number of answers`, async (t) => {
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
      // All that TLS decrypts of one read is delivered, even while reading is paused.
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

  await t.test('one exchange per turn of the event loop', async (t) => {
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

  await t.test('ordinary requests on a returned connection', async (t) => {
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

  await t.test('held behind an exchange, while their answers get stuck', async (t) => {
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

t.test('requests held behind an exchange, with congested answers', async (t) => {
  const ANSWER = 'x'.repeat(20_000)
  for (const ends of [false, true]) {
    await t.test(ends ? 'the client has ended its side' : 'the client waits', async (t) => {
      const { app, connect } = await serve(t, 'tcp', (app) => {
        app.post('/', { duplex: true }, async (_request, { duplex }) => {
          await duplex.toArray()
          duplex.end('ok')
        })
        app.get('/ordinary', { logLevel: 'silent' }, async () => ANSWER)
      }, { fastify: { keepAliveTimeout: 0 } })
      const [wire, socket] = await accepted(app, connect)
      const closed = new Promise((resolve) => socket.once('close', resolve))
      const body = 4_000_000 // opens the TCP window, so that what follows comes in one read
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
