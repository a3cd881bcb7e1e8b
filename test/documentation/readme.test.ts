// Every snippet of the README, compiled and run.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import type { FastifyInstance } from 'fastify'
import * as items from '../../lib/items/index.ts'
import { duplexProxy, proxy } from '../../lib/proxy/index.ts'
import type { DuplexProxyOptions, ProxyOptions } from '../../types/proxy.d.ts'
import { OPEN, chunk, resolvers, serve } from '../support/wire.ts'
import { JSON_LINES, make, run, skipUnless, testSnippets } from './snippets.ts'

testSnippets('README.md', [
  ["app.post('/upper'", async (code, t) => {
    const app = await make(t)
    await run(code, { app })
    t.equal((await app.inject({ method: 'POST', url: '/upper', payload: 'abc' })).payload, 'ABC')
    const client = await app.injectDuplex({ method: 'POST', url: '/upper' })
    const [first, last] = [Buffer.from('é').subarray(0, 1), Buffer.from('é').subarray(1)]
    client.write(Buffer.concat([Buffer.from('x'), first]))
    t.equal(String((await once(client, 'data'))[0]), 'X', 'not the first byte of a character')
    client.end(last)
    t.equal(await text(client), 'É')
  }],
  ['import Fastify', async (code, t) => {
    const app: FastifyInstance = await run(code.replace('port: 3000', 'port: 0'), {}, 'app')
    t.teardown(() => app.close())
    const { payload, headers } = await app.inject({ method: 'POST', url: '/echo', payload: { a: 1 } })
    t.equal(payload, '{"a":1}')
    t.match(headers, { 'content-type': 'application/json' })
  }],
  ["import { jsonl } from 'fastify-duplex/items'", async (code, t) => {
    const app = await make(t)
    await run(code, { app })
    t.equal((await app.inject({ method: 'POST', url: '/rows', headers: JSON_LINES, payload: '{"id":1}\n{"id":2}' })).payload, '{"id":1,"ok":true}\n{"id":2,"ok":true}\n')
    t.match((await app.inject({ method: 'POST', url: '/rows', headers: JSON_LINES, payload: '{"id":"x"}' })).json(), { statusCode: 400, code: 'FST_ERR_DUPLEX_ITEM' })
  }],
  ["import { open } from 'node:fs/promises'", async (code, t) => {
    const path = join(t.testdir(), 'upload')
    const app = await make(t)
    await run(code, { app, path })
    const client = await app.injectDuplex({ method: 'PUT', url: '/upload' })
    client.write('abc')
    t.equal(String((await once(client, 'data'))[0]), '3 bytes\n', 'while the upload goes on')
    client.end('de')
    t.equal(await text(client), '5 bytes\n')
    t.equal(await readFile(path, 'utf8'), 'abcde')
  }],
  ["app.post('/agent'", async (code, t) => {
    const stopped = resolvers<AbortSignal>()
    async function * model (words: string, { signal }: { signal: AbortSignal }): AsyncGenerator<string> {
      yield * words.split(' ')
      if (words !== 'for ever') return
      await once(signal, 'abort')
      stopped.resolve(signal)
    }
    const app = await make(t)
    await run(code, { app, model, ...items, prompt: { type: 'object', properties: { text: { type: 'string' } } }, token: { type: 'object', properties: { word: { type: 'string' } } } })
    const request = { method: 'POST', url: '/agent', headers: { ...JSON_LINES, accept: 'text/event-stream' } } as const
    t.equal((await app.inject({ ...request, payload: '{"text":"one two"}' })).payload, 'data: {"word":"one"}\n\ndata: {"word":"two"}\n\n')
    const client = await app.injectDuplex(request)
    client.on('error', () => {})
    client.write('{"text":"for ever"}\n')
    await once(client, 'data')
    client.destroy()
    t.ok((await stopped.promise).aborted)
  }],
  ["app.post('/lines'", async (code, t) => {
    const app = await make(t)
    await run(code, { app, once })
    const payload = 'x'.repeat(4 * 1024 * 1024)
    t.ok((await app.inject({ method: 'POST', url: '/lines', payload })).payload === payload)
    const client = await app.injectDuplex({ method: 'POST', url: '/lines' })
    client.write('a')
    t.equal(String((await once(client, 'data'))[0]), 'a')
    client.end()
  }],
  ['import { duplexProxy, proxy }', async (code, t) => {
    const origin = await make(t)
    origin.get('/*', async ({ url, headers }) => `${url} ${headers['x-forwarded-for']}`)
    const upstream = await origin.listen({ port: 0, host: '127.0.0.1' })
    const app = await make(t)
    const load = async (): Promise<object> => ({
      proxy: (options: ProxyOptions) => proxy({ ...options, upstream }),
      duplexProxy: async (app: FastifyInstance, options: DuplexProxyOptions) => duplexProxy(app, { ...options, upstream })
    })
    await run(code, { app, load })
    t.equal((await app.inject('/files/a?b')).payload, '/files/a?b 127.0.0.1')
    t.equal((await app.inject('/api/c')).payload, '/v1/c undefined')
  }],
  ["app.post('/attach'", async (code, t) => {
    const app = await make(t)
    await run(code, { app, spawn, pipeline })
    const client = await app.injectDuplex({ method: 'POST', url: '/attach', headers: { upgrade: 'tcp' }, payload: 'body ' })
    client.end('raw')
    t.equal(await text(client), 'body raw')
    t.equal((await app.inject({ method: 'POST', url: '/attach' })).statusCode, 426)
  }, { skip: skipUnless('cat', '--version') }],
  ["import { Type, type TypeBoxTypeProvider } from '@fastify/type-provider-typebox'", async (code, t) => {
    const app = await make(t)
    await run(code, { app })
    t.equal((await app.inject({ method: 'POST', url: '/typed', headers: JSON_LINES, payload: '{"id":1}' })).payload, '{"id":1,"ok":true}\n')
  }],
  ['const client = await app.injectDuplex', async (code, t) => {
    const app = await make(t)
    app.post('/upper', { duplex: true }, async function * (_request, reply) {
      for await (const chunk of reply.duplex) yield String(chunk).toUpperCase()
    })
    t.equal(await text(await run(code, { app, assert, once }, 'client')), '')
  }],
  ["app.post('/chat'", async (code, t) => {
    const { app, connect } = await serve(t, 'tcp', (app) => run(code, { app }), { plugin: { closeGrace: 60_000 } })
    const wire = await connect()
    wire.send(OPEN('/chat') + chunk('hello '))
    await wire.head()
    t.equal(await wire.content(), 'hello ')
    const closed = app.close()
    t.equal(await wire.body(), 'goodbye\n')
    wire.socket.end()
    await closed
  }]
])
