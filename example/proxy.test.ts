// Tests the forward proxy with curl and a TLS server, and tests what the proxy refuses.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { proxy } from './proxy.ts'

const run = promisify(execFile)
const folder = join(__dirname, '..', '..', 'test', 'support', 'tls')
const upstream = createServer({ key: readFileSync(join(folder, 'key.pem')), cert: readFileSync(join(folder, 'cert.pem')) }, async (request, response) => {
  response.end(`hello ${await text(request)}`)
})
const app = Fastify()
let port = 0

before(async () => {
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
  port = (upstream.address() as AddressInfo).port
  await app.register(duplex)
  await app.register(proxy, { allow: [`127.0.0.1:${port}`, '*.example.org:443', '127.0.0.1:1'], credentials: 'user:secret' })
  await app.listen({ port: 0, host: '127.0.0.1' })
})

after(async () => {
  upstream.close()
  await app.close()
})

test('curl through the proxy', async (t) => {
  try {
    await run('curl', ['--version'])
  } catch {
    t.skip('curl is not installed')
    return
  }
  const proxyUrl = (credentials: string): string => `http://${credentials}@127.0.0.1:${(app.server.address() as AddressInfo).port}`
  const url = `https://127.0.0.1:${port}/`
  const { stdout } = await run('curl', ['-sSkx', proxyUrl('user:secret'), '--noproxy', '', '-d', 'curl', url])
  assert.equal(stdout, 'hello curl')
  await assert.rejects(run('curl', ['-sSkx', proxyUrl('user:wrong'), '--noproxy', '', url]), /407/)
})

test('targets that are not allowed or cannot be reached', async () => {
  const headers = { 'proxy-authorization': `Basic ${Buffer.from('user:secret').toString('base64')}` }
  for (const [url, statusCode] of [['example.com:443', 403], ['example.org:443', 403], ['www.example.org:80', 403], ['127.0.0.1:1', 502]] as const) {
    const client = await app.injectDuplex({ method: 'CONNECT', url, headers })
    assert.equal((await client.response).statusCode, statusCode, url)
    await text(client)
  }
})
