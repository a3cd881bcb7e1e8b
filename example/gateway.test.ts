// Tests the gateway with curl, fetch and ws, in front of a server of Node's own and of ws.

import assert from 'node:assert/strict'
import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { type IncomingMessage, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import WebSocket, { WebSocketServer } from 'ws'
import { gateway } from './gateway.ts'

const run = promisify(execFile)
const authorization = 'Bearer secret'
const seen: IncomingMessage[] = []

// Echoes, and says in trailers how much there was.
const upstream = createServer((request, response) => {
  seen.push(request)
  let size = 0
  response.writeHead(200, { trailer: 'x-size', 'x-path': request.url })
  request.on('data', (chunk) => {
    size += chunk.length
    response.write(chunk)
  })
  request.on('end', () => {
    response.addTrailers({ 'x-size': String(size) })
    response.end()
  })
})
const sockets = new WebSocketServer({ server: upstream })
sockets.on('connection', (socket, request) => {
  seen.push(request)
  socket.send(`hello ${request.headers['x-user']}`) // right behind the 101
  socket.on('message', (message, isBinary) => socket.send(message, { binary: isBinary }))
})
const app = Fastify()
let address = ''

before(async () => {
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve))
  await app.register(duplex)
  await app.register(gateway, { upstream: `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`, users: { secret: 'ann', other: 'bob' } })
  address = await app.listen({ port: 0, host: '127.0.0.1' })
})

after(async () => {
  await app.close()
  sockets.close()
  upstream.close()
})

function isInstalled (): boolean {
  try {
    execFileSync('curl', ['--version'])
    return true
  } catch {
    return false
  }
}

const skip = isInstalled() ? false : 'curl is not installed'

test('curl: both directions at once, the path, the fields and the trailers', { skip }, async () => {
  seen.length = 0
  // What the client says about x-user has no effect, not even as a field of the connection, which would be dropped.
  const fields = [`authorization: ${authorization}`, 'cookie: a=b', 'x-user: root', 'X-USER: root', 'connection: x-user']
  const curl = spawn('curl', ['-sSNiT', '.', ...fields.flatMap((field) => ['-H', field]), `${address}/api/echo?a=b%20c`])
  const exit = once(curl, 'exit')
  const chunks = curl.stdout.setEncoding('utf8')[Symbol.asyncIterator]()
  let output = ''
  for (const word of ['one', 'two']) {
    curl.stdin.write(word)
    while (!output.endsWith(word)) {
      const { value, done } = await chunks.next()
      assert.ok(!done, output)
      output += value
    }
  }
  curl.stdin.end()
  for (let chunk = await chunks.next(); !chunk.done; chunk = await chunks.next()) output += chunk.value
  assert.equal((await exit)[0], 0)
  assert.match(output, /HTTP\/1.1 200 OK\r\n[^]*x-path: \/v1\/echo\?a=b%20c\r\n[^]*\r\n\r\nonetwox-size: 6\r\n/)
  const [{ method, headers }] = seen
  assert.equal(method, 'PUT')
  assert.equal(headers['x-user'], 'ann')
  assert.equal(headers.authorization, undefined)
  assert.equal(headers.cookie, undefined)
  assert.equal(headers['x-forwarded-for'], '127.0.0.1')
})

test('curl: Expect', { skip }, async () => {
  seen.length = 0
  const args = ['-sS', '-H', 'expect: 100-continue', '-d', 'abc', '-o', '/dev/null', '-w', '%{http_code} %{size_upload}', `${address}/api/echo`]
  assert.equal((await run('curl', ['-H', `authorization: ${authorization}`, ...args])).stdout, '200 3')
  assert.equal((await run('curl', args)).stdout, '401 0', 'refused before the body is sent')
  assert.equal(seen.length, 1)
})

test('fetch: a body without end, and another user', async () => {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>()
  const writer = writable.getWriter()
  const init = { method: 'POST', headers: { authorization: 'bearer other' }, body: readable, duplex: 'half' }
  const responding = fetch(`${address}/api/echo`, init as RequestInit)
  writer.write(Buffer.from('one'))
  const reader = (await responding).body!.getReader()
  assert.equal(Buffer.from((await reader.read()).value!).toString(), 'one')
  writer.write(Buffer.from('two'))
  assert.equal(Buffer.from((await reader.read()).value!).toString(), 'two')
  await writer.close()
  assert.equal((await reader.read()).done, true)
  assert.equal(seen.at(-1)!.headers['x-user'], 'bob')
})

test('fetch: who has no token reaches nothing', async () => {
  seen.length = 0
  for (const authorization of [undefined, 'Bearer', 'Bearer wrong', 'Bearer secre', 'Bearer __proto__', 'Basic secret']) {
    const response = await fetch(`${address}/api/echo`, { method: 'POST', body: 'abc', headers: authorization === undefined ? {} : { authorization } })
    assert.equal(response.status, 401, authorization)
    assert.equal(response.headers.get('www-authenticate'), 'Bearer')
    assert.match(await response.text(), /A token is required/)
  }
  assert.equal(seen.length, 0)
})

test('ws', async () => {
  const url = `${address.replace('http', 'ws')}/api/socket`
  const socket = new WebSocket(url, { headers: { authorization } })
  assert.equal(String((await once(socket, 'message'))[0]), 'hello ann')
  const content = Buffer.alloc(1024 * 1024, 'x')
  socket.send(content)
  assert.deepEqual((await once(socket, 'message'))[0], content)
  socket.close(4000, 'bye')
  const [code, reason] = await once(socket, 'close')
  assert.equal(`${code} ${reason}`, '4000 bye')
  assert.equal(seen.at(-1)!.url, '/v1/socket')

  const refused = new WebSocket(url)
  const [, response] = await once(refused, 'unexpected-response')
  assert.equal(response.statusCode, 401)
  response.resume()
})

test('no path leads out of that of the server', async () => {
  seen.length = 0
  for (const path of ['/%61pi/echo', '/a%70i/echo']) await (await fetch(address + path, { headers: { authorization } })).text()
  assert.deepEqual(seen.filter(({ url }) => !url!.startsWith('/v1')).map(({ url }) => url), [])
})
