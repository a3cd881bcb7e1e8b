// The pool of connections of fastify-duplex/client.

import { once } from 'node:events'
import { getEventListeners } from 'node:events'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import { promisify } from 'node:util'
import t from 'tap'
import type { ClientCall } from '../../types/client.d.ts'
import { run } from '../support/process.ts'
import { Random } from '../support/random.ts'
import { TLS, serve, untilStuck } from '../support/wire.ts'
import { Agent, BODY, OK, type Peer, closed, failureOf, head, open, play, until } from './support.ts'

t.test('the connection that was used last is used first', async (t) => {
  const server = await play(t)
  const calls = [server.open(), server.open(), server.open()]
  const peers: Peer[] = []
  for (const call of calls) {
    const peer = await server.peerOf(call)
    peers.push(peer)
    await peer.head()
  }
  for (const index of [0, 2, 1]) {
    peers[index].send(BODY(String(index)))
    t.equal(await text(calls[index]), String(index))
  }
  t.equal(server.agent.connections, 3)
  const order: Peer[] = []
  for (let i = 0; i < 4; i++) {
    const call = server.open()
    const peer = await server.peerOf(call)
    await peer.answer(BODY('again'))
    await text(call)
    order.push(peer)
  }
  t.ok(order.every((peer) => peer === peers[1]))
  const both = [server.open(), server.open(), server.open(), server.open()]
  const used = await Promise.all(both.map((call) => server.peerOf(call)))
  t.strictSame(used.slice(0, 3).map((peer) => peers.indexOf(peer)), [1, 2, 0])
  t.equal(server.peers.length, 4)
  for (const call of both) call.destroy()
})

t.test('a bounded number for each origin, and a queue', async (t) => {
  const server = await play(t, { agent: { maxConnections: 2 } })
  const other = await play(t)
  const order: number[] = []
  const calls = Array.from({ length: 10 }, (_, i) => {
    const call = server.open({ at: `/${i}` })
    call.on('response', () => order.push(i))
    return call
  })
  const elsewhere = open(other.url, { agent: server.agent })
  await (await other.peerOf(elsewhere)).answer(BODY('elsewhere'))
  t.equal(await text(elsewhere), 'elsewhere', 'another origin has its own')
  t.equal(server.agent.connections, 3)
  // Some of those that wait give up.
  calls[4].destroy()
  calls[7].destroy(new Error('mine'))
  await Promise.all([closed(calls[4]), closed(calls[7])])
  calls[5].destroy() // and one in the same tick in which its turn comes
  const seen: string[] = []
  const serveAll = async (peer: Peer): Promise<void> => {
    for (;;) {
      seen.push((await peer.answer(BODY('ok'))).split(' ')[1])
      if (seen.length === 7) return
    }
  }
  const both = [serveAll(await server.accept()), serveAll(await server.accept())]
  await Promise.all(calls.filter((call) => !call.destroyed).map((call) => text(call)))
  t.strictSame(seen.sort(), ['/0', '/1', '/2', '/3', '/6', '/8', '/9'])
  t.strictSame(order.filter((i) => i > 1), [2, 3, 6, 8, 9], 'in turn')
  t.equal(server.peers.length, 2)
  server.agent.close()
  await Promise.allSettled(both)

  const one = await play(t, { agent: { maxConnections: 1 } })
  const first = one.open()
  const second = one.open()
  const peer = await one.peerOf(first)
  await peer.head()
  peer.socket.resetAndDestroy()
  t.equal(await failureOf(first), 'FST_ERR_DUPLEX_SERVER_GONE')
  const fresh = await one.peerOf(second)
  await fresh.answer(BODY('second'))
  t.equal(await text(second), 'second', 'one that waits gets the place of one that has failed')
  const third = one.open({ at: '/third' })
  const fourth = one.open({ at: '/fourth' })
  third.destroy()
  const last = await one.peerOf(fourth)
  t.match(await last.answer(BODY('fourth')), /^GET \/fourth/)
  t.equal(await text(fourth), 'fourth')

  const nowhere = new Agent({ maxConnections: 1 })
  const failing = [open('http://127.0.0.1:1', { agent: nowhere }), open('http://127.0.0.1:1', { agent: nowhere })]
  t.strictSame(await Promise.all(failing.map(failureOf)), ['FST_ERR_DUPLEX_CONNECT', 'FST_ERR_DUPLEX_CONNECT'])
  t.equal(nowhere.connections, 0)
})

t.test('idle connections are closed in time', async (t) => {
  for (const [agent, field] of [[{ idleTimeout: 20 }, 'X: 1'], [{}, 'Keep-Alive: timeout=1, max=5'], [{}, 'keep-alive: max=5, Timeout=0']] as const) {
    const server = await play(t, { agent })
    const call = server.open()
    const peer = await server.peerOf(call)
    await peer.answer(BODY('one', field))
    t.equal(await text(call), 'one')
    await peer.ended
    t.equal(server.agent.connections, 0, field)
  }
  const server = await play(t)
  const call = server.open()
  const peer = await server.peerOf(call)
  await peer.answer(BODY('one', 'Keep-Alive: timeout=5'))
  await text(call)
  t.equal(server.agent.connections, 1)
  t.equal(call.socket!.timeout, 4000, 'a second before the server closes it')
})

t.test('a connection that the server has ended, or used without being asked, is not used again', async (t) => {
  const server = await play(t)
  for (const act of [
    (peer: Peer) => peer.socket.end(),
    (peer: Peer) => peer.socket.resetAndDestroy(),
    (peer: Peer) => peer.send(BODY('smuggled')),
    (peer: Peer) => peer.send(head('408 Request Timeout', 'Connection: close'))
  ]) {
    const call = server.open()
    const peer = await server.peerOf(call)
    await peer.answer(BODY('one'))
    await text(call)
    t.equal(server.agent.connections, 1)
    act(peer)
    await until(() => server.agent.connections === 0)
    peer.socket.destroy()
    const next = server.open()
    const other = await server.peerOf(next)
    t.not(other, peer)
    await other.answer(BODY('two', 'Connection: close'))
    t.equal(await text(next), 'two')
    other.socket.destroy()
    await until(() => server.agent.connections === 0)
  }
})

t.test('a connection that the server asks to close is not used again, whichever of its heads says so', async (t) => {
  const server = await play(t)
  for (const answer of [BODY('one', 'Connection: close'), head('103 Early Hints', 'Connection: x, Close') + head('103 Early Hints') + BODY('one')]) {
    const call = server.open()
    await (await server.peerOf(call)).answer(answer)
    t.equal(await text(call), 'one')
    await closed(call)
    t.equal(server.agent.connections, 0)
  }
})

t.test('a request whose idle connection turns out to be dead is sent once more, if that does no harm', async (t) => {
  const server = await play(t, { agent: { maxConnections: 1 } })
  const makeIdle = async (): Promise<Peer> => {
    const call = server.open()
    const peer = await server.peerOf(call)
    await peer.answer(BODY('one'))
    await text(call)
    return peer
  }
  for (const die of [(peer: Peer) => peer.socket.destroy(), (peer: Peer) => peer.socket.resetAndDestroy(), (peer: Peer) => peer.socket.end()]) {
    for (const method of ['GET', 'HEAD', 'OPTIONS', 'DELETE', 'TRACE']) {
      const peer = await makeIdle()
      const call = server.open({ method, at: '/again' })
      const waits = server.open({ at: '/waits' })
      await peer.head()
      die(peer)
      await until(() => server.peers.at(-1) !== peer)
      const second = server.peers.at(-1)!
      t.match(await second.answer(method === 'HEAD' ? OK('Content-Length: 5') : BODY('again')), new RegExp(`^${method} /again `))
      t.equal(await text(call), method === 'HEAD' ? '' : 'again')
      await closed(call)
      t.equal(call.errored, null)
      t.match(await second.answer(BODY('waited', 'Connection: close')), /^GET \/waits /, 'the queue goes on behind it')
      t.equal(await text(waits), 'waited')
      second.socket.destroy()
      peer.socket.destroy()
      await until(() => server.agent.connections === 0)
    }
  }
  for (const [name, options, act, code] of [
    ['POST', { method: 'POST', payload: '' }, (peer: Peer) => peer.socket.destroySoon(), 'TRUNCATED'],
    ['PUT with a body', { method: 'PUT', payload: 'a' }, (peer: Peer) => peer.socket.resetAndDestroy(), 'SERVER_GONE'],
    ['Upgrade', { headers: { upgrade: 'x' } }, (peer: Peer) => peer.socket.resetAndDestroy(), 'SERVER_GONE'],
    ['part of an answer', {}, (peer: Peer) => peer.send('H').socket.destroySoon(), 'TRUNCATED'],
    ['an interim answer', {}, (peer: Peer) => peer.send(head('102 Processing')).socket.destroySoon(), 'TRUNCATED']
  ] as const) {
    const peer = await makeIdle()
    const call = server.open(options)
    const failed = failureOf(call)
    await peer.head()
    if (name.includes('body')) await peer.until('a')
    act(peer)
    t.equal(await failed, `FST_ERR_DUPLEX_${code}`, name)
    await peer.closed
    await until(() => server.agent.connections === 0)
  }
  const fresh = server.open()
  const peer = await server.peerOf(fresh)
  await peer.head()
  peer.socket.destroySoon()
  t.equal(await failureOf(fresh), 'FST_ERR_DUPLEX_TRUNCATED', 'never on a new connection')
  const idle = await makeIdle()
  const twice = server.open()
  await idle.head()
  const failed = failureOf(twice)
  idle.socket.destroySoon()
  await until(() => server.peers.at(-1) !== idle)
  const second = server.peers.at(-1)!
  await second.head()
  second.socket.resetAndDestroy()
  t.equal(await failed, 'FST_ERR_DUPLEX_SERVER_GONE', 'only once')
})

t.test('the write that fails on a dead connection does not hold up the call', async (t) => {
  const server = await play(t)
  const first = server.open()
  const peer = await server.peerOf(first)
  await peer.answer(BODY('one'))
  await text(first)
  // The connection breaks in the same tick in which it gets its next request.
  first.socket!.destroy(new Error('broken'))
  const second = server.open()
  const fresh = await server.accept() === peer ? await server.accept() : await server.accept()
  await fresh.answer(BODY('two'))
  t.equal(await text(second), 'two')
  await closed(second)
  t.equal(second.errored, null)
})

t.test('what comes on an idle connection before the next request is sent is no answer to that request', async (t) => {
  const server = await play(t)
  for (const act of [(peer: Peer) => peer.send(BODY('smuggled')), (peer: Peer) => peer.socket.resetAndDestroy(), (peer: Peer) => peer.socket.end()]) {
    const call = server.open()
    const peer = await server.peerOf(call)
    await peer.answer(BODY('one'))
    await text(call)
    await immediate()
    // In this turn of the event loop the call gets its connection. In the next one, it reads before it writes.
    act(peer)
    const next = server.open({ method: 'POST' })
    t.equal(server.agent.connections, 1)
    await until(() => server.peers.at(-1) !== peer)
    const fresh = server.peers.at(-1)!
    next.end('body')
    t.match(await fresh.until('0\r\n\r\n'), /^POST [^]*\r\nbody\r\n0/)
    fresh.send(BODY('two', 'Connection: close'))
    t.equal(await text(next), 'two')
    t.equal(peer.received, '')
    peer.socket.destroy()
    fresh.socket.destroy()
    await until(() => server.agent.connections === 0)
  }
})

t.test('agent.close()', async (t) => {
  const server = await play(t, { agent: { maxConnections: 2 } })
  const idle = server.open()
  const first = await server.peerOf(idle)
  await first.answer(BODY('idle'))
  await text(idle)
  const busy = server.open({ method: 'POST' })
  const connecting = server.open()
  const waiting = server.open()
  await first.head()
  server.agent.close()
  t.equal(await failureOf(waiting), 'FST_ERR_DUPLEX_AGENT_CLOSED')
  for (const options of [{}, { method: 'POST' }, { method: 'POST', payload: 'a' }, { method: 'POST', payload: (async function * () { yield 'a' })() }]) {
    const late = server.open(options)
    t.equal(await failureOf(late), 'FST_ERR_DUPLEX_AGENT_CLOSED')
    await closed(late)
  }
  const second = await server.peerOf(connecting)
  await second.answer(BODY('connected'))
  t.equal(await text(connecting), 'connected', 'what is under way goes on')
  await second.ended
  busy.end('body')
  await first.until('0\r\n\r\n')
  first.send(BODY('busy'))
  t.equal(await text(busy), 'busy')
  await first.ended
  t.equal(server.agent.connections, 0)
  server.agent.close()

  const other = await play(t)
  const kept = other.open()
  const peer = await other.peerOf(kept)
  await peer.answer(BODY('kept'))
  await text(kept)
  other.agent.close()
  await peer.ended
  t.equal(other.agent.connections, 0, 'idle ones are closed at once')
})

t.test('idle connections do not keep the process alive', async (t) => {
  const server = await play(t)
  const printed = run(`
    const { open } = require('./lib/client/index.ts')
    open(${JSON.stringify(server.url)}).on('data', (data) => console.log(String(data)))`)
  const peer = await server.accept()
  await peer.answer(BODY('bye', 'Keep-Alive: timeout=600'))
  t.equal(await printed, 'bye\n')
})

t.test('1000 calls aborted at random phases leave nothing behind', async (t) => {
  for (const transport of ['tcp', 'tls'] as const) {
    const { app, port } = await serve(t, transport, (app) => {
      app.post('/echo', { duplex: true }, async (_request, reply) => pipeline(reply.duplex, reply.duplex))
      app.get('/get', { duplex: true }, async function * () { for (let i = 0; i < 10; i++) yield 'a'.repeat(1000) })
    }, { fastify: { logger: false } })
    const agent = new Agent({ maxConnections: 20, tls: { ca: TLS.cert } })
    const url = `http${transport === 'tls' ? 's' : ''}://127.0.0.1:${port}`
    const random = new Random(1)
    const { signal } = new AbortController()
    const controllers: AbortController[] = []
    const before = process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
    const phases: ((call: ClientCall) => unknown)[] = [
      () => {},
      () => immediate(),
      (call) => until(() => call.socket !== null || call.destroyed),
      (call) => call.response,
      (call) => once(call, 'data'),
      (call) => text(call)
    ]
    const run = async (i: number): Promise<void> => {
      const controller = new AbortController()
      controllers.push(controller)
      const isPost = random.below(2) === 0
      const phase = random.below(phases.length)
      const how = random.below(3)
      const call = open(url + (isPost ? '/echo' : '/get'), { agent, method: isPost ? 'POST' : 'GET', signal: how === 0 ? controller.signal : signal })
      if (isPost) {
        call.write('a'.repeat(1 + random.below(100_000)))
        if (phase === 5) call.end()
      }
      await Promise.resolve(phases[phase](call)).catch(() => {})
      if (how === 0) controller.abort()
      else if (how === 1) call.destroy()
      else if (call.socket === null || call.closed) call.destroy(new Error('mine'))
      else call.socket.destroy() // which may be that of another call by now
      if (phase === 5) call.destroy()
      call.resume() // what a call has received is read, or it is not over
      await closed(call)
    }
    await Promise.all(Array.from({ length: 500 }, (_, i) => run(i)))
    t.equal(getEventListeners(signal, 'abort').length, 0)
    t.ok(controllers.every(({ signal }) => getEventListeners(signal, 'abort').length === 0))
    const last = open(`${url}/get`, { agent })
    t.equal((await text(last)).length, 10_000, 'and the next one works')
    t.ok(agent.connections <= 20)
    agent.close()
    t.equal(agent.connections, 0)
    const open_ = promisify(app.server.getConnections.bind(app.server))
    while (await open_() > 0) await immediate()
    await untilStuck(() => 0)
    const after = process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
    t.ok(after <= before, `${before} timers before, ${after} after`)
  }
})
