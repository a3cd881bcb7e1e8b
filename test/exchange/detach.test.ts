// detach(): the handler takes the connection.

import { once } from 'node:events'
import net from 'node:net'
import { text } from 'node:stream/consumers'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyReply } from 'fastify'
import t from 'tap'
import WebSocket, { WebSocketServer } from 'ws'
import { GET, UPGRADE, chunked, resolvers, serve } from '../support/wire.ts'

t.test('detach() after the client has ended its side', async (t) => {
  for (const rest of ['', 'rest']) {
    let got = ''
    const { app, connect } = await serve(t, 'tcp', (app) => {
      app.get('/', { duplex: true }, async (request, reply) => {
        await ended
        await immediate()
        const { socket, head } = reply.duplex.detach()
        got += String(head)
        socket.on('end', () => socket.end(`bye ${got}`))
      })
    })
    let tell = (): void => {}
    const ended = new Promise<void>((resolve) => { tell = resolve })
    app.server.on('connection', (socket) => socket.on('end', tell))
    const wire = await connect()
    let answer = ''
    wire.socket.on('data', (chunk) => { answer += String(chunk) })
    wire.socket.end(GET('/') + rest)
    await wire.ended
    t.equal(answer, `bye ${rest}`)
  }
})

t.test('detach()', async (t) => {
  const wss = new WebSocketServer({ noServer: true })
  wss.on('connection', (socket) => { socket.on('message', (message) => socket.send(`ws ${String(message)}`)) })
  const codes: unknown[] = []
  const responses: string[] = []
  let detached!: net.Socket
  let flowing!: FastifyReply['duplex']
  const code = (action: () => unknown): void => {
    try {
      action()
      codes.push('nothing')
    } catch (error) {
      codes.push((error as { code: string }).code)
    }
  }
  const { app, connect, port, log, logged } = await serve(t, 'tcp', (app) => {
    app.addHook('onResponse', async (request) => { responses.push(request.url) })
    // At once, and after the head of a tunnel.
    app.get('/ws', { duplex: true }, (request, reply) => {
      const { socket, head } = reply.duplex.detach({ counted: false })
      wss.handleUpgrade(request.raw, socket, head, (client) => { wss.emit('connection', client, request.raw) })
    })
    app.post('/raw', { duplex: true }, async (request, reply) => {
      const stream = reply.duplex
      code(() => stream.detach())
      t.equal(await text(stream), 'body')
      const { socket, head } = stream.detach()
      detached = socket
      socket.write(`raw ${String(head)}`)
      socket.on('data', (chunk) => socket.write(chunk))
      socket.on('end', () => socket.end())
      for (const action of [() => stream.detach(), () => stream.flushHeaders(), () => stream.setTrailers({}), () => stream.writeInformation(102)]) code(action)
      stream.write('a', (error) => { codes.push((error as unknown as { code: string }).code) })
      await stream.toArray().catch((error) => { codes.push(error.code) })
    })
    app.get('/tunnel', { duplex: true }, async (request, reply) => {
      reply.code(101).header('upgrade', 'x').duplex.write('mine ')
      await once(reply.duplex, 'readable')
      const { socket, head } = reply.duplex.detach()
      socket.end(`yours ${String(head)}`)
    })
    app.get('/at-once', { duplex: true }, (request, reply) => {
      reply.code(101).header('upgrade', 'x').duplex.write('mine ')
      reply.duplex.detach().socket.end('yours')
    })
    app.get('/congested', { duplex: true }, async (request, reply) => {
      const { duplex } = reply.code(101).header('upgrade', 'x')
      duplex.write(Buffer.alloc(20_000_000))
      await new Promise((resolve) => setImmediate(resolve))
      duplex.write('more')
      await new Promise((resolve) => setImmediate(resolve))
      code(() => duplex.detach())
      duplex.destroy(new Error('congested'))
    })
    app.get('/flowing', { duplex: true }, async (request, reply) => {
      flowing = reply.code(101).header('upgrade', 'x').duplex.setEncoding('latin1')
      flowing.flushHeaders()
      flowing.once('data', (first) => {
        flowing.pause().once('data', (second) => {
          const { socket, head } = flowing.detach()
          socket.end(`${first} ${second} ${String(head)}`)
        })
      })
    })
    app.get('/stopped', { duplex: true }, async (request, reply) => {
      const stream = reply.code(101).header('upgrade', 'x').duplex
      stream.flushHeaders()
      // Until there is more than the stream holds.
      while (stream.readableLength < stream.readableHighWaterMark) await once(stream, 'readable').then(() => stream.read(0))
      const { socket, head } = stream.detach()
      let size = head.length
      socket.on('data', (chunk) => { size += chunk.length })
      socket.on('end', () => socket.end(String(size)))
    })
    app.get('/begun', { duplex: true }, async (request, reply) => {
      await new Promise((resolve) => { reply.duplex.write('begun', resolve) })
      code(() => reply.duplex.detach())
      reply.duplex.end()
    })
    app.post('/unread', { duplex: true }, async (request, reply) => {
      await once(reply.duplex, 'readable')
      code(() => reply.duplex.detach())
      reply.duplex.end(await text(reply.duplex))
    })
    app.get('/hook', { duplex: true, onRequest: (request, reply, done) => { code(() => reply.duplex.detach()); done() } }, (request, reply) => {
      reply.duplex.end('hooked')
    })
    app.get('/answered', { duplex: true }, async (request, reply) => {
      const { duplex } = reply
      reply.send('answered')
      code(() => duplex.detach())
      return reply
    })
    app.get('/over', { duplex: true }, async (request, reply) => {
      await once(reply.duplex.resume().end('over'), 'close')
      code(() => reply.duplex.detach())
    })
    app.get('/throws', { duplex: true }, async (request, reply) => {
      const { socket } = reply.duplex.detach()
      socket.end('thrown')
      throw new Error('after it')
    })
    app.get('/turn', { duplex: true }, (request, reply) => {
      code(() => reply.duplex.detach())
      reply.duplex.end('mine')
    })
    app.get('/slow', async () => { await new Promise((resolve) => setImmediate(resolve)); return 'slow' })
  })

  await t.test('passes the connection to another library', async (t) => {
    const client = new WebSocket(`ws://127.0.0.1:${port}/ws`)
    await once(client, 'open')
    client.send('hello')
    t.equal(String((await once(client, 'message'))[0]), 'ws hello')
    t.equal(responses.pop(), '/ws')
    client.close()
    await once(client, 'close')
  })

  await t.test('after the request body, with the bytes behind it', async (t) => {
    const wire = await connect()
    let received = ''
    wire.socket.on('data', (chunk: Buffer) => { received += chunk.toString() })
    wire.send(chunked('/raw', 'body') + 'behind')
    while (!received.endsWith('behind')) await once(wire.socket, 'data')
    wire.send('on')
    while (!received.endsWith('on')) await once(wire.socket, 'data')
    t.equal(received, 'raw behindon')
    t.equal(detached.timeout ?? 0, 0)
    wire.socket.end()
    await wire.ended
    t.strictSame(codes.splice(0), ['FST_ERR_DUPLEX_DETACH', ...Array(6).fill('FST_ERR_DUPLEX_DETACHED')])
  })

  await t.test('in a tunnel, with unread bytes', async (t) => {
    const wire = await connect()
    wire.send(UPGRADE('/tunnel') + 'unread')
    await wire.head()
    t.equal(await wire.body(), 'mine yours unread')
    const atOnce = await connect()
    atOnce.send(UPGRADE('/at-once'))
    await atOnce.head()
    t.equal(await atOnce.body(), 'mine yours')
    const congested = await connect()
    congested.socket.pause()
    const errored = logged('request errored')
    congested.send(UPGRADE('/congested'))
    t.match(await errored, { err: { message: 'congested' } })
    t.strictSame(codes.splice(0), ['FST_ERR_DUPLEX_DETACH'])
  })

  await t.test('in a flowing tunnel, with the bytes that follow', async (t) => {
    const wire = await connect()
    wire.send(UPGRADE('/flowing') + 'a')
    await wire.head()
    for (const [i, byte] of [...'bcd'].entries()) {
      wire.send(byte)
      while (flowing.readableLength === i) await new Promise((resolve) => setImmediate(resolve))
    }
    flowing.resume()
    t.equal(await wire.body(), 'a b cd')
  })

  await t.test('in a tunnel under backpressure', async (t) => {
    const wire = await connect()
    wire.send(UPGRADE('/stopped'))
    await wire.head()
    wire.socket.end(Buffer.alloc(3_000_000))
    t.equal(await wire.body(), '3000000')
  })

  await t.test('refused where the connection cannot be detached', async (t) => {
    const wire = await connect()
    t.equal((await wire.request(GET('/begun'))).body, 'begun')
    t.equal((await wire.request(GET('/answered'))).body, 'answered')
    t.equal((await wire.request(GET('/over'))).body, 'over')
    t.equal((await wire.request(chunked('/unread', 'body'))).body, 'body')
    t.equal((await wire.request(GET('/hook'))).body, 'hooked')
    wire.send(GET('/slow') + GET('/turn'))
    t.equal((await wire.response()).body, 'slow')
    t.equal((await wire.response()).body, 'mine')
    t.strictSame(codes.splice(0), ['FST_ERR_DUPLEX_DETACH', 'FST_ERR_DUPLEX_HEAD_SENT', ...Array(4).fill('FST_ERR_DUPLEX_DETACH')])
    t.match(await app.inject('/turn'), { payload: 'mine' })
    t.strictSame(codes.splice(0), ['FST_ERR_DUPLEX_TUNNEL'])
    const thrown = await connect()
    thrown.send(GET('/throws'))
    await thrown.ended
    t.equal(log.filter((line) => line.level > 40).map((line) => line.msg).join(), 'request errored,duplex handler failed after its response')
  })
})

t.test('a detached connection counts when the app closes, unless told otherwise', async (t) => {
  for (const counted of [true, false]) {
    let detached!: (socket: net.Socket) => void
    const socket = new Promise<net.Socket>((resolve) => { detached = resolve })
    let closing = false
    const { app, connect } = await serve(t, 'tcp', (app) => {
      app.get('/', { duplex: true }, (request, reply) => {
        reply.duplex.on('shutdown', () => { closing = true })
        detached(reply.duplex.detach({ counted }).socket)
      })
    }, { fastify: { forceCloseConnections: false } })
    const wire = await connect()
    wire.send(GET('/'))
    const theirs = await socket
    theirs.on('error', () => {})
    const closed = app.close()
    if (counted) {
      // After `closeGrace`, which is none here.
      await once(theirs, 'close')
      await closed
    } else {
      // Nobody ends it but its owner, and the server waits for that.
      while (app.server.listening) await new Promise((resolve) => setImmediate(resolve))
      t.notOk(theirs.destroyed)
      theirs.end('bye')
      wire.socket.end()
      await closed
    }
    t.equal(closing, counted)
  }
})

t.test('a connection that is detached while the app closes has what is left of closeGrace', async (t) => {
  const opened = resolvers()
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.get('/', { duplex: { closeGrace: 50 } }, (request, { duplex }) => {
      duplex.once('shutdown', () => { duplex.detach().socket.resume() })
      opened.resolve()
    })
  }, { fastify: { forceCloseConnections: 'idle', pluginTimeout: 0 } })
  const wire = await connect()
  wire.send(UPGRADE('/'))
  await opened.promise
  const closed = app.close()
  await wire.ended
  await closed
  t.equal(app.duplex.exchanges().length, 0)
})
