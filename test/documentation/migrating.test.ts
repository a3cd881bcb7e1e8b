// Both sides of docs/migrating.md, compiled and run: they answer the same.

import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import WebSocket from 'ws'
import { type Setup, chunk, serve } from '../support/wire.ts'
import { read } from './pages.ts'
import { JSON_LINES, listen, make, run, skipUnless, testSnippets } from './snippets.ts'

const PAGE = 'docs/migrating.md'

/** Talks to a route that answers in upper case, while the request is open. */
async function converse (t: Test, setup: Setup, path: string): Promise<void> {
  const { connect } = await serve(t, 'tcp', setup)
  const wire = await connect()
  wire.send(`POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n` + chunk('one'))
  t.equal((await wire.head()).statusCode, 200)
  t.equal(await wire.content(3), 'ONE')
  wire.send(chunk('two') + '0\r\n\r\n')
  t.equal(await wire.body(), 'TWO')
}

/** Talks through a tunnel that sends back what it gets. */
async function echo (t: Test, code: string, path: string, method: string): Promise<void> {
  const { connect } = await serve(t, 'tcp', (app) => run(code, { app, pipeline }))
  const wire = await connect()
  wire.send(`${method} ${path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n${method === 'POST' ? 'Content-Length: 0\r\n' : ''}\r\nearly `)
  t.equal((await wire.head()).statusCode, 101)
  wire.send('late').socket.end()
  t.equal(await wire.body(), 'early late')
}

let upperCase: unknown

testSnippets(PAGE, [
  ["app.addContentTypeParser('*'", (code, t) => converse(t, (app) => run(code, { app }), '/hijacked')],
  ["app.post('/unhijacked'", (code, t) => converse(t, (app) => run(code, { app }), '/unhijacked')],
  ["import { Transform } from 'node:stream'", (code, t) => converse(t, async (app) => { upperCase = await run(code, { app, pipeline }, 'upperCase') }, '/raw')],
  ["app.post('/not-raw'", (code, t) => converse(t, (app) => run(code, { app, pipeline, upperCase }), '/not-raw')],
  ["import type { Readable } from 'node:stream'", (code, t) => converse(t, (app) => run(code, { app, upperCase }), '/sent')],
  ["app.post('/yielded'", (code, t) => converse(t, (app) => run(code, { app }), '/yielded')],
  ["import websocket from '@fastify/websocket'", async (code, t) => {
    const app = await make(t)
    await run(code, { app })
    const client = new WebSocket(`ws://127.0.0.1:${await listen(app)}/socket`)
    await once(client, 'open')
    client.send('{"id":1}')
    t.equal(String((await once(client, 'message'))[0]), '{"id":1,"ok":true}')
    client.close()
    await once(client, 'close')
  }],
  ["import { jsonl } from 'fastify-duplex/items'", async (code, t) => {
    const app = await make(t)
    await run(code, { app })
    t.equal((await app.inject({ method: 'POST', url: '/questions', headers: JSON_LINES, payload: '{"id":1}' })).payload, '{"id":1,"ok":true}\n')
  }],
  ["app.post('/attached'", (code, t) => echo(t, code, '/attached', 'POST')],
  ["app.get('/detached'", (code, t) => echo(t, code, '/detached', 'GET')]
])

t.test("Go's side", { skip: skipUnless('go', 'version') }, async (t) => {
  const [, code] = /^```go\n(.*?)^```/ms.exec(read(PAGE))!
  const directory = t.testdir({ 'main.go': `package main\n\nimport (\n\t"io"\n\t"net/http"\n)\n\n${code}\nfunc main() { http.HandleFunc("/", attach) }\n` })
  await promisify(execFile)('go', ['build', '-o', join(directory, 'main'), 'main.go'], { cwd: directory })
})
