// nginx and HAProxy in front: what the settings of nginx.conf and haproxy.cfg keep open, and what happens without them.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import http from 'node:http'
import net from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ENDLESS, MB, type Served, Source, serve, unless } from './support.ts'

const STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so' // Debian's place
const NGINX = ['-p', '.', '-e', 'stderr', '-c']

interface Proxy { served: Served, ports: Record<string, number> }

/** Starts a proxy with its file, filled in, in a directory of its own; it ends with the test. */
async function start (t: Test, command: string, args: string[], file: string, names: string[]): Promise<Proxy> {
  const served = await serve(t)
  const directory = t.testdir()
  const ports: Record<string, number> = {}
  for (const name of names) ports[name] = await freePort()
  const filled: Record<string, string | number> = { ...ports, app: served.port, module: STREAM_MODULE }
  const template = await readFile(join(__dirname, file), 'utf8')
  await writeFile(join(directory, file), template.replace(/@(\w+)@/g, (_, name) => String(filled[name])))
  const proxy = spawn(command, args, { cwd: directory, stdio: ['ignore', 'inherit', 'inherit'] })
  const ended = once(proxy, 'close')
  t.teardown(async () => {
    proxy.kill()
    await ended
  })
  for (const name of names) await accepting(ports[name], ended)
  return { served, ports }
}

async function freePort (): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as net.AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

async function accepting (port: number, ended: Promise<unknown>): Promise<void> {
  let over = false
  ended.then(() => { over = true })
  for (;;) {
    if (over) throw new Error('The proxy has ended')
    const socket = net.connect(port, '127.0.0.1')
    const isOpen = await new Promise((resolve) => socket.once('connect', () => resolve(true)).once('error', () => resolve(false)))
    socket.destroy()
    if (isOpen) return
  }
}

function open (port: number, path: string, options: http.RequestOptions = {}): { request: http.ClientRequest, response: Promise<http.IncomingMessage> } {
  const request = http.request({ port, path, method: 'POST', agent: false, ...options })
  const response = once(request, 'response').then(([response]) => response as http.IncomingMessage)
  response.catch(() => {})
  request.on('error', () => {}) // of the upload; of the response it rejects
  request.flushHeaders()
  return { request, response }
}

async function size (response: http.IncomingMessage): Promise<number> {
  let size = 0
  for await (const piece of response) size += piece.length
  return size
}

async function ping (port: number): Promise<string> {
  const { request, response } = open(port, '/ping', { method: 'GET' })
  request.end()
  return String(await once(await response, 'data'))
}

async function talk (t: Test, port: number, agent: http.Agent): Promise<void> {
  const { request, response } = open(port, '/upper', { agent })
  request.write('one')
  const incoming = await response
  t.equal(String(await once(incoming, 'data')), 'ONE')
  for (const word of ['two', 'three']) {
    request.write(word)
    t.equal(String(await once(incoming, 'data')), word.toUpperCase())
  }
  request.end()
  await once(incoming, 'end')
}

async function echo (t: Test, port: number, expected = 64 * MB): Promise<void> {
  const { request, response } = open(port, '/echo')
  new Source(expected).pipe(request)
  t.equal(await size(await response), expected)
}

/** The response has begun; the request comes faster than it is read. */
async function slowReader (port: number): Promise<string> {
  const { request, response } = open(port, '/slow')
  const incoming = await response
  new Source(48 * MB).pipe(request)
  try {
    let text = ''
    for await (const piece of incoming) text += piece
    return text
  } catch {
    return 'cut off'
  }
}

async function refused (t: Test, port: number): Promise<void> {
  const { request, response } = open(port, '/refused')
  const source = new Source(ENDLESS)
  source.pipe(request)
  t.equal((await response).statusCode, 403)
  source.destroy()
  request.destroy()
}

/** Whether the request goes on to the app before it is complete. */
async function isHeld (t: Test, { served, ports }: Proxy, port: number): Promise<void> {
  let arrived = false
  served.app.server.on('request', ({ url }) => { arrived ||= url === '/told' })
  const { request, response } = open(port, '/told')
  request.write('one')
  // Once these are through, so would be what came before them.
  for (let i = 0; i < 20; i++) t.equal(await ping(port), 'pong')
  t.equal(arrived, false)
  request.end('two')
  t.equal(String(await once(await response, 'data')), 'onetwo')
  await Promise.all(Object.values(ports).map(ping))
}

async function trailers (served: Served, port: number): Promise<{ up: object, down: object }> {
  const asked = open(port, '/told', { headers: { trailer: 'x-words' } })
  asked.request.write('one')
  asked.request.addTrailers({ 'x-words': '1' })
  asked.request.end()
  await size(await asked.response)
  const { request, response } = open(port, '/import', { headers: { te: 'trailers' } })
  request.end('{"name":"a","amount":1}\n')
  const incoming = await response
  await size(incoming)
  return { up: { ...served.last('/told').trailers }, down: incoming.trailers }
}

/** Whether the app's answer comes before the upload is asked for. */
async function expectation (port: number): Promise<string> {
  const { request, response } = open(port, '/refused', { headers: { expect: '100-continue', 'content-length': MB } })
  const first = await Promise.race([once(request, 'continue').then(() => '100'), response.then(({ statusCode }) => String(statusCode))])
  request.destroy()
  return first
}

async function keepsConnections (t: Test, { served }: Proxy, port: number): Promise<void> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  t.teardown(() => agent.destroy())
  const connections = new Set()
  served.app.server.on('request', ({ socket }) => connections.add(socket))
  for (let i = 0; i < 5; i++) await talk(t, port, agent)
  t.equal(connections.size, 1)
}

t.test('nginx', { skip: unless('nginx', '-v') }, async (t) => {
  const nginx = await start(t, 'nginx', [...NGINX, 'nginx.conf'], 'nginx.conf', ['duplex', 'defaults'])
  const { served, ports } = nginx

  t.test('with its settings', async (t) => {
    t.test('a conversation, five times over one connection to the app', (t) => keepsConnections(t, nginx, ports.duplex))
    t.test('a refusal of an upload', (t) => refused(t, ports.duplex))
    t.test('answers Expect itself', async (t) => t.equal(await expectation(ports.duplex), '100'))
    t.test('drops trailers', async (t) => t.strictSame(await trailers(served, ports.duplex), { up: {}, down: {} }))
    t.test('stops sending, for good, when the response has begun and the app reads more slowly', async (t) => {
      t.equal(await slowReader(ports.duplex), 'cut off')
      t.match(served.last('/slow'), { code: 'FST_ERR_DUPLEX_IDLE' })
      t.comment(`after ${served.last('/slow').bytesRead} bytes`)
    })
  })

  t.test('with its defaults', async (t) => {
    t.test('a request is held until it is complete', (t) => isHeld(t, nginx, ports.defaults))
    t.test('and told by its length', async (t) => t.match(served.last('/told'), { framing: 'length' }))
    t.test('an echo of a megabyte', (t) => echo(t, ports.defaults, MB))
    t.test('answers Expect itself', async (t) => t.equal(await expectation(ports.defaults), '100'))
    t.test('drops trailers', async (t) => t.strictSame(await trailers(served, ports.defaults), { up: {}, down: {} }))
    t.test('more than a megabyte is refused', async (t) => {
      const { request, response } = open(ports.defaults, '/echo', { headers: { 'content-length': 2 * MB } })
      t.equal((await response).statusCode, 413)
      request.destroy()
    })
  })
})

t.test('nginx as a proxy of TCP, which leaves nothing to tell', { skip: unless('nginx', '-v') || (existsSync(STREAM_MODULE) ? false : 'the stream module of nginx is not installed') }, async (t) => {
  const { served, ports: { tcp } } = await start(t, 'nginx', [...NGINX, 'nginx-tcp.conf'], 'nginx-tcp.conf', ['tcp'])
  t.test('a conversation', (t) => talk(t, tcp, new http.Agent()))
  t.test('an echo of more than any buffer holds', (t) => echo(t, tcp))
  t.test('a slow reader', async (t) => t.equal(await slowReader(tcp), String(48 * MB)))
  t.test('a refusal of an upload', (t) => refused(t, tcp))
  t.test('Expect', async (t) => t.equal(await expectation(tcp), '403'))
  t.test('trailers', async (t) => t.strictSame(await trailers(served, tcp), { up: { 'x-words': '1' }, down: { 'x-imported': '1', 'x-refused': '0' } }))
})

t.test('HAProxy', { skip: unless('haproxy', '-v') }, async (t) => {
  const haproxy = await start(t, 'haproxy', ['-db', '-f', 'haproxy.cfg'], 'haproxy.cfg', ['duplex', 'buffered'])
  const { served, ports } = haproxy

  t.test('with its settings', async (t) => {
    t.test('a conversation, five times over one connection to the app', (t) => keepsConnections(t, haproxy, ports.duplex))
    t.test('an echo of more than any buffer holds', (t) => echo(t, ports.duplex))
    t.test('a slow reader', async (t) => t.equal(await slowReader(ports.duplex), String(48 * MB)))
    t.test('a refusal of an upload', (t) => refused(t, ports.duplex))
    t.test('Expect', async (t) => t.equal(await expectation(ports.duplex), '403'))
    t.test('trailers', async (t) => t.strictSame(await trailers(served, ports.duplex), { up: { 'x-words': '1' }, down: { 'x-imported': '1', 'x-refused': '0' } }))
  })

  t.test('with http-buffer-request', async (t) => {
    t.test('a request is held until it is complete', (t) => isHeld(t, haproxy, ports.buffered))
    t.test('an echo of more than any buffer holds', (t) => echo(t, ports.buffered))
    t.test('answers Expect itself', async (t) => t.equal(await expectation(ports.buffered), '100'))
    t.test('trailers', async (t) => t.strictSame(await trailers(served, ports.buffered), { up: { 'x-words': '1' }, down: { 'x-imported': '1', 'x-refused': '0' } }))
  })
})
