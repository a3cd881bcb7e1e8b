// nginx and HAProxy in front of duplex routes: with the settings that keep both directions open, and without them.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import http from 'node:http'
import net from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ENDLESS, MB, type Served, Source, serve, unlessInstalled } from './support.ts'

const STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so' // on Debian
const NGINX = ['-p', '.', '-e', 'stderr', '-c']

interface Proxy { served: Served, ports: Record<string, number> }

/** Starts a proxy with its configuration file, in a new directory. It is stopped at the end of the test. */
async function start (t: Test, command: string, args: string[], file: string, names: string[]): Promise<Proxy> {
  const served = await serve(t)
  const directory = t.testdir()
  const ports: Record<string, number> = {}
  for (const name of names) ports[name] = await freePort()
  const values: Record<string, string | number> = { ...ports, app: served.port, module: STREAM_MODULE }
  const template = await readFile(join(__dirname, file), 'utf8')
  await writeFile(join(directory, file), template.replace(/@(\w+)@/g, (_, name) => String(values[name])))
  const proxy = spawn(command, args, { cwd: directory, stdio: ['ignore', 'inherit', 'inherit'] })
  const ended = once(proxy, 'close')
  t.teardown(async () => {
    proxy.kill()
    await ended
  })
  for (const name of names) await waitForPort(ports[name], ended)
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

async function waitForPort (port: number, ended: Promise<unknown>): Promise<void> {
  let hasEnded = false
  ended.then(() => { hasEnded = true })
  for (;;) {
    if (hasEnded) throw new Error('The proxy has exited')
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
  request.on('error', () => {}) // the upload may fail; `response` rejects if there is none
  request.flushHeaders()
  return { request, response }
}

async function readSize (response: http.IncomingMessage): Promise<number> {
  let size = 0
  for await (const chunk of response) size += chunk.length
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
  t.equal(await readSize(await response), expected)
}

/** Sends a request faster than the app reads it, after the response has begun. @returns the response, or that it was cut off */
async function sendToSlowReader (port: number): Promise<string> {
  const { request, response } = open(port, '/slow')
  const incoming = await response
  new Source(48 * MB).pipe(request)
  try {
    let text = ''
    for await (const chunk of incoming) text += chunk
    return text
  } catch {
    return 'cut off'
  }
}

async function checkRefusal (t: Test, port: number): Promise<void> {
  const { request, response } = open(port, '/refused')
  const source = new Source(ENDLESS)
  source.pipe(request)
  t.equal((await response).statusCode, 403)
  source.destroy()
  request.destroy()
}

/** Checks that the proxy forwards the request only when it is complete. */
async function checkBuffering (t: Test, { served, ports }: Proxy, port: number): Promise<void> {
  let arrived = false
  served.app.server.on('request', ({ url }) => { arrived ||= url === '/received' })
  const { request, response } = open(port, '/received')
  request.write('one')
  // The proxy has forwarded these later requests, so it would have forwarded the first one, too.
  for (let i = 0; i < 20; i++) t.equal(await ping(port), 'pong')
  t.equal(arrived, false)
  request.end('two')
  t.equal(String(await once(await response, 'data')), 'onetwo')
  await Promise.all(Object.values(ports).map(ping))
}

async function trailers (served: Served, port: number): Promise<{ up: object, down: object }> {
  const sent = open(port, '/received', { headers: { trailer: 'x-words' } })
  sent.request.write('one')
  sent.request.addTrailers({ 'x-words': '1' })
  sent.request.end()
  await readSize(await sent.response)
  const { request, response } = open(port, '/import', { headers: { te: 'trailers', 'content-type': 'application/jsonl' } })
  request.end('{"name":"a","amount":1}\n')
  const incoming = await response
  await readSize(incoming)
  return { up: { ...served.last('/received').trailers }, down: incoming.trailers }
}

/** Sends a request with Expect that the app refuses. @returns the first status code that arrives */
async function statusForExpect (port: number): Promise<string> {
  const { request, response } = open(port, '/refused', { headers: { expect: '100-continue', 'content-length': MB } })
  const first = await Promise.race([once(request, 'continue').then(() => '100'), response.then(({ statusCode }) => String(statusCode))])
  request.destroy()
  return first
}

/** Checks that the proxy reuses its connection to the app. */
async function checkReuse (t: Test, { served }: Proxy, port: number): Promise<void> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  t.teardown(() => agent.destroy())
  const connections = new Set()
  served.app.server.on('request', ({ socket }) => connections.add(socket))
  for (let i = 0; i < 5; i++) await talk(t, port, agent)
  t.equal(connections.size, 1)
}

t.test('nginx', { skip: unlessInstalled('nginx', '-v') }, async (t) => {
  const nginx = await start(t, 'nginx', [...NGINX, 'nginx.conf'], 'nginx.conf', ['duplex', 'defaults'])
  const { served, ports } = nginx

  t.test('with its settings', async (t) => {
    t.test('a conversation, five times over one connection to the app', (t) => checkReuse(t, nginx, ports.duplex))
    t.test('a refusal of an upload', (t) => checkRefusal(t, ports.duplex))
    t.test('answers Expect itself', async (t) => t.equal(await statusForExpect(ports.duplex), '100'))
    t.test('drops trailers', async (t) => t.strictSame(await trailers(served, ports.duplex), { up: {}, down: {} }))
    t.test('stops sending for good when the response has begun and the app reads slowly', async (t) => {
      t.equal(await sendToSlowReader(ports.duplex), 'cut off')
      t.match(served.last('/slow'), { code: 'FST_ERR_DUPLEX_IDLE' })
      t.comment(`after ${served.last('/slow').bytesRead} bytes`)
    })
  })

  t.test('with its defaults', async (t) => {
    t.test('buffers a request until it is complete', (t) => checkBuffering(t, nginx, ports.defaults))
    t.test('and is forwarded with its length', async (t) => t.match(served.last('/received'), { framing: 'length' }))
    t.test('an echo of a megabyte', (t) => echo(t, ports.defaults, MB))
    t.test('answers Expect itself', async (t) => t.equal(await statusForExpect(ports.defaults), '100'))
    t.test('drops trailers', async (t) => t.strictSame(await trailers(served, ports.defaults), { up: {}, down: {} }))
    t.test('refuses more than a megabyte', async (t) => {
      const { request, response } = open(ports.defaults, '/echo', { headers: { 'content-length': 2 * MB } })
      t.equal((await response).statusCode, 413)
      request.destroy()
    })
  })
})

t.test('nginx as a TCP proxy, which passes everything on', { skip: unlessInstalled('nginx', '-v') || (existsSync(STREAM_MODULE) ? false : 'the stream module of nginx is not installed') }, async (t) => {
  const { served, ports: { tcp } } = await start(t, 'nginx', [...NGINX, 'nginx-tcp.conf'], 'nginx-tcp.conf', ['tcp'])
  t.test('a conversation', (t) => talk(t, tcp, new http.Agent()))
  t.test('an echo of more than any buffer holds', (t) => echo(t, tcp))
  t.test('a slow reader', async (t) => t.equal(await sendToSlowReader(tcp), String(48 * MB)))
  t.test('a refusal of an upload', (t) => checkRefusal(t, tcp))
  t.test('Expect', async (t) => t.equal(await statusForExpect(tcp), '403'))
  t.test('trailers', async (t) => t.strictSame(await trailers(served, tcp), { up: { 'x-words': '1' }, down: { 'x-imported': '1', 'x-refused': '0' } }))
})

t.test('HAProxy', { skip: unlessInstalled('haproxy', '-v') }, async (t) => {
  const haproxy = await start(t, 'haproxy', ['-db', '-f', 'haproxy.cfg'], 'haproxy.cfg', ['duplex', 'buffered'])
  const { served, ports } = haproxy

  t.test('with its settings', async (t) => {
    t.test('a conversation, five times over one connection to the app', (t) => checkReuse(t, haproxy, ports.duplex))
    t.test('an echo of more than any buffer holds', (t) => echo(t, ports.duplex))
    t.test('a slow reader', async (t) => t.equal(await sendToSlowReader(ports.duplex), String(48 * MB)))
    t.test('a refusal of an upload', (t) => checkRefusal(t, ports.duplex))
    t.test('Expect', async (t) => t.equal(await statusForExpect(ports.duplex), '403'))
    t.test('trailers', async (t) => t.strictSame(await trailers(served, ports.duplex), { up: { 'x-words': '1' }, down: { 'x-imported': '1', 'x-refused': '0' } }))
  })

  t.test('with http-buffer-request', async (t) => {
    t.test('buffers a request until it is complete', (t) => checkBuffering(t, haproxy, ports.buffered))
    t.test('an echo of more than any buffer holds', (t) => echo(t, ports.buffered))
    t.test('answers Expect itself', async (t) => t.equal(await statusForExpect(ports.buffered), '100'))
    t.test('trailers', async (t) => t.strictSame(await trailers(served, ports.buffered), { up: { 'x-words': '1' }, down: { 'x-imported': '1', 'x-refused': '0' } }))
  })
})
