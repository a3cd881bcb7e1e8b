// Has one conversation with the agent in three ways: in memory, with fetch and a parser of server-sent events, and with curl.

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { createInterface } from 'node:readline'
import { PassThrough, Readable, type Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { after, before, test } from 'node:test'
import { EventSourceParserStream } from 'eventsource-parser/stream'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { type AgentEvent, type Message, type Run, agent } from './agent.ts'

const headers = { 'content-type': 'application/jsonl' }
const WORDS = 10_000
const LONG_PROMPT: Message = { type: 'prompt', text: Array(WORDS).fill('word').join(' ') }

const app = Fastify({ forceCloseConnections: true }) // after an abort, `fetch` opens a connection that it does not use
const runs = new EventEmitter()
let url = ''

before(async () => {
  await app.register(duplex)
  await app.register(agent, { pace: 1, record: (run: Run) => runs.emit('run', run) })
  url = `${await app.listen({ port: 0, host: '127.0.0.1' })}/agent`
})

after(() => app.close())

function send (up: Writable, message: Message): void {
  up.write(`${JSON.stringify(message)}\n`)
}

async function * linesOf (down: Readable): AsyncGenerator<AgentEvent> {
  for await (const line of createInterface({ input: down })) yield JSON.parse(line)
}

async function * eventsOf (response: Promise<Response>): AsyncGenerator<AgentEvent> {
  const { body } = await response
  for await (const { data } of body!.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream())) yield JSON.parse(data)
}

/** The conversation that all clients have. */
async function converse (up: Writable, events: AsyncIterator<AgentEvent>): Promise<void> {
  const next = async (): Promise<AgentEvent> => (await events.next()).value
  send(up, { type: 'prompt', text: 'Rome or Oslo?' })
  assert.deepEqual(await next(), { type: 'tool_call', id: 'call_Rome', name: 'weather', city: 'Rome' })
  assert.deepEqual(await next(), { type: 'tool_call', id: 'call_Oslo', name: 'weather', city: 'Oslo' })
  send(up, { type: 'tool_result', id: 'call_Oslo', output: 'snow' })
  send(up, { type: 'tool_result', id: 'call_Rome', output: 'very sunny' })
  for (const word of ['Rome:', 'very', 'sunny.', 'Oslo:', 'snow.']) assert.deepEqual(await next(), { type: 'token', text: `${word} ` })
  assert.deepEqual(await next(), { type: 'done' })
  send(up, { type: 'prompt', text: 'Thanks' })
  assert.deepEqual(await next(), { type: 'token', text: 'Thanks ' })
  assert.deepEqual(await next(), { type: 'done' })
  up.end()
  assert.equal((await events.next()).done, true)
}

/** Leaves when the first token has come. The app has a record of the run that was cancelled. */
async function leave (up: Writable, events: AsyncIterator<AgentEvent>, disconnect: () => void): Promise<void> {
  const run = once(runs, 'run')
  send(up, LONG_PROMPT)
  assert.deepEqual((await events.next()).value, { type: 'token', text: 'word ' })
  disconnect()
  const [{ tokens, outcome }] = await run
  assert.equal(outcome, 'cancelled')
  assert.ok(tokens > 0 && tokens < WORDS, `${tokens} tokens`)
}

test('JSON Lines, in memory', async () => {
  const client = await app.injectDuplex({ method: 'POST', url: '/agent', headers })
  await converse(client, linesOf(client))
  assert.equal((await client.response).headers['content-type'], 'application/jsonl')

  const leaving = await app.injectDuplex({ method: 'POST', url: '/agent', headers })
  leaving.on('error', () => {})
  await leave(leaving, linesOf(leaving), () => leaving.destroy())
})

test('server-sent events, with fetch and eventsource-parser', async () => {
  const post = (up: Readable, signal?: AbortSignal): Promise<Response> => {
    const init = { method: 'POST', headers: { ...headers, accept: 'text/event-stream' }, body: Readable.toWeb(up), duplex: 'half', signal }
    return fetch(url, init as RequestInit)
  }

  const up = new PassThrough()
  const response = post(up)
  await converse(up, eventsOf(response))
  assert.equal((await response).headers.get('content-type'), 'text/event-stream')

  const client = new AbortController()
  const abortedUp = new PassThrough()
  await leave(abortedUp, eventsOf(post(abortedUp, client.signal)), () => client.abort())
})

test('JSON Lines, with curl', async (t) => {
  try {
    execFileSync('curl', ['--version'])
  } catch {
    t.skip('curl is not installed')
    return
  }
  const start = () => spawn('curl', ['-sSN', '-T', '.', '-H', 'content-type: application/jsonl', url], { stdio: ['pipe', 'pipe', 'inherit'] })

  const curl = start()
  const closed = once(curl, 'close')
  await converse(curl.stdin, linesOf(curl.stdout))
  assert.deepEqual(await closed, [0, null])

  const leaving = start()
  await leave(leaving.stdin, linesOf(leaving.stdout), () => leaving.kill())
})

test('messages and clients that are refused', async () => {
  const statusOf = async (fields: object, payload = '{"type":"prompt","text":"a"}'): Promise<number> => {
    return (await app.inject({ method: 'POST', url: '/agent', headers: { ...headers, ...fields }, payload })).statusCode
  }
  assert.equal(await statusOf({}), 200)
  assert.equal(await statusOf({ 'content-type': 'application/json' }), 415)
  assert.equal(await statusOf({ accept: 'text/html' }), 406)
  assert.equal(await statusOf({}, '{"type":"prompt"}'), 400)

  // After the first byte, the last item says why the response is cut off.
  const client = await app.injectDuplex({ method: 'POST', url: '/agent', headers })
  client.on('error', () => {}) // readline does not report it
  const lines = linesOf(client) as AsyncGenerator<unknown>
  send(client, { type: 'prompt', text: 'one' })
  await lines.next()
  await lines.next()
  client.write('{"type":"prompt"}\n')
  const { value } = await lines.next()
  assert.deepEqual({ ...value as object, detail: '' }, { type: 'about:blank', title: 'Bad Request', status: 400, detail: '', code: 'FST_ERR_DUPLEX_ITEM', index: 1, offset: 31 })
  await assert.rejects(finished(client), { code: 'FST_ERR_DUPLEX_TRUNCATED' })
})
