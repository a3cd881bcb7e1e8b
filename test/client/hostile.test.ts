// fastify-duplex/client with servers that die, lie, dawdle or send too much: never a hang, always the same code, and never a response
// that looks whole when it is not.

import { once } from 'node:events'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import t from 'tap'
import { jsonl } from '../../lib/items/index.ts'
import type { ClientCall, OpenOptions } from '../../types/client.d.ts'
import { LIMITS } from '../conformance/requests.ts'
import { MAX_HEAD_SIZE } from '../conformance/request-heads.ts'
import { responses } from '../conformance/responses.ts'
import { byteByByte, whole } from '../support/feed.ts'
import { Agent, BODY, OK, type Outcome, type Peer, type Played, closed, failureOf, head, outcomeOf, play, until } from './support.ts'

type Options = OpenOptions<undefined, undefined>

/** Sends the pieces, each when the client has read the one before it. */
async function sendTo (call: ClientCall, peer: Peer, pieces: Buffer[]): Promise<void> {
  let sent = 0
  for (const piece of pieces) {
    if (peer.socket.destroyed) return
    peer.socket.write(piece)
    sent += piece.length
    while (call.socket!.bytesRead < sent && !call.socket!.destroyed) await immediate()
  }
}

type Death = 'ends' | 'resets' | 'lives'

/** Sends the pieces as a response, and then dies. */
async function respond (server: Played, options: Options, pieces: Buffer[], death: Death): Promise<Outcome> {
  const agent = new Agent()
  const call = server.open({ ...LIMITS, maxHeadSize: MAX_HEAD_SIZE, agent, ...options })
  if (options.method === 'POST') call.end()
  const outcome = outcomeOf(call)
  const peer = await server.peerOf(call)
  await peer.head()
  await sendTo(call, peer, pieces)
  if (death === 'ends') peer.socket.destroySoon()
  if (death === 'resets') peer.socket.resetAndDestroy()
  const result = await outcome
  await closed(call)
  agent.close()
  peer.socket.destroy()
  return result
}

t.test('responses of the conformance table', async (t) => {
  const server = await play(t)
  for (const [rule, name, method, bytes, outcome] of responses) {
    const title = `${rule} ${name}`
    const results: Outcome[] = []
    for (const pieces of [whole(bytes), byteByByte(bytes)]) {
      results.push(await respond(server, { method }, pieces, outcome.accepted && outcome.ends === 'connection' ? 'ends' : 'lives'))
    }
    if (outcome.accepted) {
      const { statuses, content, trailers, ends } = outcome
      const expected: Outcome = { statuses, content, trailers, code: null }
      if (ends === 'itself') results.push(await respond(server, { method }, whole(bytes + BODY('smuggled')), 'lives'))
      t.strictSame(results.filter((result) => !isDeepStrictEqual(result, expected)), [], title)
    } else {
      t.strictSame(results.map(({ code }) => code), [outcome.code, outcome.code], title)
      t.strictSame(results[1], results[0], `${title}: the same byte by byte`)
    }
  }
})

t.test('bytes behind a response are never taken for the next one', async (t) => {
  const server = await play(t)
  for (const behind of [BODY('smuggled'), '\r\n', 'x', '0']) {
    const call = server.open()
    const peer = await server.accept()
    await peer.answer(BODY('one') + behind)
    t.equal(await text(call), 'one')
    const next = server.open()
    const other = await server.accept()
    await other.answer(BODY('two', 'Connection: close'))
    t.equal(await text(next), 'two', JSON.stringify(behind))
    await peer.ended
    peer.socket.destroy()
    other.socket.destroy()
  }
  const call = server.open({ method: 'POST' })
  const peer = await server.accept()
  await peer.answer(BODY('one'))
  t.equal(await text(call), 'one')
  peer.send(BODY('smuggled'))
  while (call.socket!.bytesRead < (BODY('one') + BODY('smuggled')).length) await immediate()
  call.end()
  await closed(call)
  await peer.ended
  t.equal(server.agent.connections, 0, 'nor behind one whose request goes on')
})

t.test('a server that dies at any byte of its response', async (t) => {
  const server = await play(t)
  let deaths = 0
  for (const [rule, name, method, bytes, outcome] of responses) {
    if (!outcome.accepted) continue
    const heads = bytes.lastIndexOf('HTTP/1.')
    const body = bytes.indexOf('\r\n\r\n', heads) + 4
    const wrong: unknown[] = []
    for (const death of ['ends', 'resets'] as const) {
      await Promise.all(Array.from({ length: bytes.length }, async (_, size) => {
        const { code } = await respond(server, { method }, whole(bytes.slice(0, size)), death)
        const isWhole = death === 'ends' && outcome.ends === 'connection' && size >= body
        const expected = isWhole ? null : death === 'ends' ? 'FST_ERR_DUPLEX_TRUNCATED' : 'FST_ERR_DUPLEX_SERVER_GONE'
        if (code !== expected) wrong.push({ death, size, code })
        deaths++
      }))
    }
    if (outcome.ends === 'connection') {
      const { code } = await respond(server, { method }, whole(bytes), 'resets')
      if (code !== 'FST_ERR_DUPLEX_SERVER_GONE') wrong.push({ death: 'reset behind the last byte', code })
    }
    t.strictSame(wrong, [], `${rule} ${name}`)
  }
  t.ok(deaths > 2000, `${deaths} deaths`)
})

t.test('a server that dies at any byte of the request', async (t) => {
  const server = await play(t)
  const CONTENT = 'content'
  for (const [headers, framed] of [[{ 'transfer-encoding': 'chunked' }, 'chunked'], [{ 'content-length': CONTENT.length }, 'length']] as const) {
    for (const death of ['ends', 'resets'] as const) {
      for (const answers of [false, true]) {
        for (let size = 0; size <= CONTENT.length; size++) {
          const call = server.open({ method: 'POST', headers })
          const outcome = outcomeOf(call)
          const peer = await server.peerOf(call)
          await peer.head()
          for (const byte of CONTENT.slice(0, size)) {
            call.write(byte)
            await peer.until(framed === 'chunked' ? `1\r\n${byte}\r\n` : byte)
          }
          if (answers) {
            peer.send(BODY('whole'))
            await once(call, 'end')
          }
          if (death === 'ends') peer.socket.destroySoon()
          else peer.socket.resetAndDestroy()
          await peer.closed
          const title = `${framed}, ${death} behind ${size} bytes${answers ? ' and its answer' : ''}`
          if (answers) {
            for (const byte of CONTENT.slice(size)) {
              call.write(byte)
              await immediate()
            }
            call.end()
            t.match(await outcome, { content: 'whole', code: null }, title)
            await closed(call)
            t.equal(call.errored, null)
          } else {
            t.match(await outcome, { content: '', statuses: [], code: death === 'ends' ? 'FST_ERR_DUPLEX_TRUNCATED' : 'FST_ERR_DUPLEX_SERVER_GONE' }, title)
          }
          await until(() => server.agent.connections === 0)
        }
      }
    }
  }
  t.equal(server.agent.connections, 0)
})

t.test('limits', async (t) => {
  const server = await play(t)
  const long = (size: number): string => OK(`a: ${'b'.repeat(size)}`)
  for (const [answer, code, options] of [
    [OK('Content-Length: 0', `a: ${'b'.repeat(17_000)}`), 'HEAD_LIMIT'],
    ['HTTP/1.1 200 ' + 'a'.repeat(17_000), 'HEAD_LIMIT'],
    ['a'.repeat(17_000), 'HEAD_LIMIT'],
    [long(200), 'HEAD_LIMIT', { maxHeadSize: 200 }],
    [head('100 Continue').repeat(1000), 'HEAD_LIMIT'],
    [head('100 Continue').repeat(8) + BODY(''), 'HEAD_LIMIT', { maxHeadSize: 8 * head('100 Continue').length }],
    [OK('Transfer-Encoding: chunked') + '0\r\na: ' + 'b'.repeat(17_000), 'TRAILER_LIMIT'],
    [OK('Transfer-Encoding: chunked') + '0\r\na: bbbb\r\n\r\n', 'TRAILER_LIMIT', { maxTrailerSize: 5 }],
    [OK('Transfer-Encoding: chunked') + '1;a\r\na\r\n'.repeat(10_000), 'CHUNK_EXTENSION_LIMIT'],
    [OK('Transfer-Encoding: chunked') + '1;a=b\r\n', 'CHUNK_EXTENSION_LIMIT', { maxChunkExtensionSize: 1 }]
  ] as [string, string, Options?][]) {
    for (const pieces of [whole(answer), answer.length < 1000 ? byteByByte(answer) : whole(answer)]) {
      t.equal((await respond(server, { maxHeadSize: undefined, maxTrailerSize: undefined, maxChunkExtensionSize: undefined, ...options }, pieces, 'lives')).code, `FST_ERR_DUPLEX_${code}`)
    }
  }
  const call = server.open({ maxHeadSize: 100 })
  const peer = await server.peerOf(call)
  peer.send(head('100 Continue').repeat(5))
  const failed = failureOf(call)
  t.equal(await failed, 'FST_ERR_DUPLEX_HEAD_LIMIT')
  t.match((call.errored as Error).message, /100 bytes/, 'the limit is that of all heads')
})

t.test('garbage', async (t) => {
  const server = await play(t)
  for (const garbage of ['\0', '\r\n\r\n', 'GET / HTTP/1.1\r\n\r\n', '220 mail.example.com ESMTP\r\n\r\n', '\x16\x03\x01\x02\x00\r\n\r\n', 'HTTP/1.1 200 OK\r\n\r\r\n\r\n', 'HTTP/3.0 200 OK\r\n\r\n', 'HTTP/1.1 099 x\r\n\r\n']) {
    for (const pieces of [whole(garbage), byteByByte(garbage)]) {
      const { code, content, statuses } = await respond(server, {}, pieces, 'ends')
      t.ok(['FST_ERR_DUPLEX_HEAD', 'FST_ERR_DUPLEX_TRUNCATED'].includes(code!), `${code}: ${JSON.stringify(garbage)}`)
      t.strictSame({ content, statuses }, { content: '', statuses: [] })
    }
  }
})

// Timeouts. A test of one that must not act waits for several of another one, which does.

t.test('headersTimeout', async (t) => {
  const server = await play(t)
  const failsSlowly = async (options: Options, act: (peer: Peer, call: ClientCall) => unknown): Promise<string> => {
    const call = server.open(options)
    const failed = failureOf(call)
    const peer = await server.peerOf(call)
    await peer.head()
    await act(peer, call)
    const code = await failed
    await peer.closed
    return code
  }
  const TIMEOUT = 'FST_ERR_DUPLEX_SERVER_TIMEOUT'
  t.equal(await failsSlowly({ headersTimeout: 20 }, () => {}), TIMEOUT, 'silence')
  t.equal(await failsSlowly({ headersTimeout: 20, method: 'POST', payload: 'body' }, () => {}), TIMEOUT, 'silence behind a body')
  t.equal(await failsSlowly({ headersTimeout: 100 }, (peer) => {
    const bytes = OK(...Array.from({ length: 1000 }, () => 'a: b'))
    let index = 0
    const timer = setInterval(() => peer.send(bytes[index++]), 10)
    peer.socket.on('close', () => clearInterval(timer))
  }), TIMEOUT, 'a head byte by byte')
  t.equal(await failsSlowly({ headersTimeout: 100 }, (peer) => {
    const timer = setInterval(() => peer.send(head('102 Processing')), 10)
    peer.socket.on('close', () => clearInterval(timer))
  }), TIMEOUT, 'interim heads without an end')
  t.equal(await failsSlowly({ headersTimeout: 20, method: 'POST' }, (peer) => { peer.send('HTTP/1.1 2') }), TIMEOUT, 'part of a head, while the request goes on')
  t.equal(await failsSlowly({ headersTimeout: 20, method: 'POST' }, (peer) => { peer.send(head('100 Continue') + 'H') }), TIMEOUT, 'the same behind an interim head')

  const patient = server.open({ headersTimeout: 20, method: 'POST' })
  const peer = await server.peerOf(patient)
  await peer.head()
  peer.send(head('100 Continue'))
  await once(patient, 'information')
  t.equal(await failsSlowly({ headersTimeout: 100 }, () => {}), TIMEOUT)
  peer.send(BODY('whole'))
  t.equal(await text(patient), 'whole', 'no limit while the request goes on')
  patient.end()
  await closed(patient)

  const unlimited = server.open({ headersTimeout: 0 })
  await peer.head()
  const other = play(t)
  const shorter = (await other).open({ headersTimeout: 30 })
  t.equal(await failureOf(shorter), TIMEOUT)
  peer.send('H')
  peer.send(BODY('whole').slice(1))
  t.equal(await text(unlimited), 'whole')
})

t.test('bodyTimeout', async (t) => {
  const server = await play(t)
  const begin = async (options: Options, answer: string): Promise<[ClientCall, Peer]> => {
    const call = server.open({ bodyTimeout: 20, ...options })
    const peer = await server.peerOf(call)
    const response = once(call, 'response')
    await peer.answer(answer)
    await response
    return [call, peer]
  }
  const TIMEOUT = { code: 'FST_ERR_DUPLEX_SERVER_TIMEOUT' }
  const HALF = OK('Content-Length: 10') + 'half'

  const [silent] = await begin({}, HALF)
  await t.rejects(text(silent), TIMEOUT, 'silence')

  await t.test('as many lengths of time as there are calls', async (t) => {
    const calls = await Promise.all(Array.from({ length: 20 }, (_, i) => begin({ bodyTimeout: 20 + i }, HALF)))
    for (const [call] of calls) await t.rejects(text(call), TIMEOUT)
  })

  await t.test('not while our reader has paused', async (t) => {
    const [paused, peer] = await begin({ bodyTimeout: 100 }, OK('Content-Length: 10000004') + 'half')
    peer.send('a'.repeat(10_000_000))
    const [reference] = await begin({ bodyTimeout: 400 }, HALF)
    await t.rejects(text(reference), TIMEOUT)
    t.equal(paused.destroyed, false)
    t.equal((await text(paused)).length, 10_000_004)
  })

  await t.test('not while our side has not finished the request', async (t) => {
    const [writing, peer] = await begin({ method: 'POST' }, OK('Transfer-Encoding: chunked'))
    const [reference] = await begin({ bodyTimeout: 100 }, HALF)
    await t.rejects(text(reference), TIMEOUT)
    writing.end('at last')
    await peer.until('0\r\n\r\n')
    peer.send('0\r\n\r\n')
    t.equal(await text(writing), '')
  })

  await t.test('a server that does not take the request', async (t) => {
    const [stuck, peer] = await begin({ method: 'POST' }, OK('Transfer-Encoding: chunked'))
    peer.socket.pause()
    stuck.write(Buffer.alloc(64 * 1024 * 1024))
    await t.rejects(text(stuck), TIMEOUT)
    const [answered, other] = await begin({ method: 'POST' }, BODY('whole'))
    other.socket.pause()
    answered.write(Buffer.alloc(64 * 1024 * 1024))
    t.equal(await text(answered), 'whole')
    answered.end()
    await closed(answered)
    t.equal(answered.errored, null, 'but behind its whole answer that is no error')
    const [last, third] = await begin({ method: 'POST' }, BODY('whole', 'Connection: close'))
    third.socket.pause()
    last.end(Buffer.alloc(64 * 1024 * 1024))
    t.equal(await text(last), 'whole')
    await closed(last)
    t.equal(last.errored, null, 'also if all of it was handed to the system')
    for (const { socket } of [peer, other, third]) socket.resume()
    for (const { ended } of [peer, other, third]) await ended
  })

  await t.test('not in tunnels, but for a tunnel that is refused', async (t) => {
    const [tunnel, peer] = await begin({ headers: { upgrade: 'x' } }, head('101 Switching Protocols', 'Upgrade: x'))
    const [refused] = await begin({ method: 'CONNECT', path: 'a:1', bodyTimeout: 100 }, head('403 Forbidden', 'Content-Length: 10') + 'half')
    await t.rejects(text(refused), TIMEOUT)
    peer.socket.end('alive')
    t.equal(await text(tunnel), 'alive')
    tunnel.destroy()
    const [unlimited, other] = await begin({ bodyTimeout: 0 }, HALF)
    const [reference] = await begin({ bodyTimeout: 100 }, HALF)
    await t.rejects(text(reference), TIMEOUT)
    other.send('whole!')
    t.equal(await text(unlimited), 'halfwhole!')
  })
})

t.test('other code runs while the request is dropped', async (t) => {
  const MANY = 100_000
  const state = { isStopped: false, count: 0 }
  async function * endless (): AsyncGenerator<string> {
    for (state.count = 0; !state.isStopped && state.count < MANY; state.count++) yield `${'1'.repeat(30_000)}\n`
  }
  const upload: Record<string, (call: ClientCall) => Promise<unknown>> = {
    pipeline: (call) => pipeline(Readable.from(endless()), call),
    async loop (call) {
      for await (const content of endless()) if (!call.write(content)) await once(call, 'drain')
      call.end()
    }
  }
  const answers: Record<string, { options: OpenOptions<any, any>, die: (peer: Peer) => unknown, outcomes: string[] }> = {
    'a server that answers and closes': { options: {}, die: (peer) => peer.send(head('413 No', 'Content-Length: 2', 'Connection: close') + 'no').socket.destroySoon(), outcomes: [''] },
    'a server that refuses to switch': { options: { headers: { upgrade: 'x' } }, die: (peer) => peer.send(head('403 No', 'Content-Length: 2') + 'no'), outcomes: ['', 'ERR_STREAM_PREMATURE_CLOSE'] }, // of pipeline(): we have ended the call
    // The item is not read yet. It is read before the failure is told.
    'a server that dies behind an item': { options: { receive: jsonl({}) }, die: (peer) => { peer.send(OK('Content-Type: application/jsonl', 'Transfer-Encoding: chunked') + '2\r\n1\n\r\n').socket.end() }, outcomes: ['FST_ERR_DUPLEX_TRUNCATED'] }
  }
  const server = await play(t)
  for (const [name, { options, die, outcomes }] of Object.entries(answers)) {
    for (const [way, write] of Object.entries(upload)) {
      state.isStopped = false
      const call = server.open({ method: 'POST', agent: new Agent(), ...options })
      const written = write(call).then(() => '', ({ code }: NodeJS.ErrnoException) => code!)
      const peer = await server.peerOf(call)
      await peer.head()
      die(peer)
      await call.response
      for (let turn = 0; turn < 100; turn++) await immediate()
      state.isStopped = true
      if ('receive' in options) {
        const { items } = call as unknown as { items: AsyncIterable<unknown> }
        const read = async (): Promise<void> => { for await (const item of items) t.equal(item, 1) }
        await t.rejects(read(), { code: outcomes[0] })
      } else {
        t.equal(await text(call), 'no')
      }
      t.ok(outcomes.includes(await written), `${name}, ${way}`)
      t.ok(state.count < MANY)
      call.destroy()
    }
  }
})
