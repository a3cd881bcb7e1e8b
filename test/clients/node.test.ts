// Node's clients: node:http, undici and fetch.

import { once } from 'node:events'
import http from 'node:http'
import { PassThrough, Readable } from 'node:stream'
import { satisfies } from 'semver'
import t from 'tap'
import { ENDLESS, MB, type Served, Source, serve } from './support.ts'

const withoutUndici = satisfies(process.version, '>=22.19') ? false : 'undici 8 needs Node 22.19'
const undici = (withoutUndici ? null : require('undici')) as typeof import('undici')

interface Opened { status: () => number, body: AsyncIterable<Uint8Array> }
type Open = (url: string, up: Readable, headers?: Record<string, string>) => Promise<Opened>

const method = 'POST'

const CLIENTS: Record<string, Open> = {
  'http.request': async (url, up, headers) => {
    const request = http.request(url, { method, headers, agent: false })
    up.pipe(request)
    const response = once(request, 'response')
    request.on('error', () => {}) // the upload fails when the server closes the connection
    const [incoming] = await response as [http.IncomingMessage]
    return { status: () => incoming.statusCode!, body: incoming }
  },
  'undici.request': async (url, up, headers) => {
    const { statusCode, body } = await undici.request(url, { method, headers, body: up })
    return { status: () => statusCode, body }
  },
  'undici.stream': async (url, up, headers) => {
    const down = new PassThrough()
    let status = 0
    undici.stream(url, { method, headers, body: up }, ({ statusCode }) => {
      status = statusCode
      return down
    }).catch((error) => down.destroy(error))
    return { status: () => status, body: down }
  },
  'undici.pipeline': async (url, up, headers) => {
    let status = 0
    const through = undici.pipeline(url, { method, headers }, ({ statusCode, body }) => {
      status = statusCode
      return body
    })
    return { status: () => status, body: up.pipe(through) }
  },
  'undici.fetch': async (url, up, headers) => {
    const response = await undici.fetch(url, { method, headers, body: up, duplex: 'half' })
    return { status: () => response.status, body: response.body! as AsyncIterable<Uint8Array> }
  },
  fetch: async (url, up, headers) => {
    const response = await fetch(url, { method, headers, body: up as unknown as BodyInit, duplex: 'half' } as RequestInit)
    return { status: () => response.status, body: response.body! as unknown as AsyncIterable<Uint8Array> }
  }
}

let served: Served
t.before(async () => { served = await serve(t) })

for (const [name, open] of Object.entries(CLIENTS)) {
  t.test(name, { skip: name.startsWith('undici') && withoutUndici }, async (t) => {
    if (!withoutUndici) t.teardown(() => undici.getGlobalDispatcher().close().then(() => undici.setGlobalDispatcher(new undici.Agent())))

    t.test('reads each answer before it sends the next word', async (t) => {
      const up = new PassThrough()
      up.write('one')
      const { body } = await open(served.address + '/upper', up)
      const answers = body[Symbol.asyncIterator]()
      t.equal(String(Buffer.from((await answers.next()).value)), 'ONE')
      up.write('two')
      t.equal(String(Buffer.from((await answers.next()).value)), 'TWO')
      up.end()
      t.equal((await answers.next()).done, true)
    })

    t.test('gets an echo of more than any buffer holds', async (t) => {
      const { body } = await open(served.address + '/echo', new Source(64 * MB))
      let size = 0
      let isRight = true
      for await (const chunk of body) {
        for (let i = size; i < size + chunk.length; i += 65536 - i % 65536) isRight &&= chunk[i - size] === (Math.floor(i / 65536) + 1) % 256
        size += chunk.length
      }
      t.equal(size, 64 * MB)
      t.ok(isRight)
    })

    for (const [path, status] of [['/refused', 403], ['/early', 200]] as const) {
      t.test(`gets the ${status} of ${path} while it is sending`, async (t) => {
        const up = new Source(name === 'undici.pipeline' ? 256 * MB : ENDLESS)
        up.on('error', () => {})
        const opened = await open(served.address + path, up)
        let size = 0
        for await (const chunk of opened.body) size += chunk.length
        up.destroy()
        t.equal(opened.status(), status)
        t.ok(size > 0)
        t.comment(`${up.bytesRead} bytes were read from the source`)
      })
    }
  })
}

t.test('http.request with Expect that waits for `continue` sends nothing when it is refused', async (t) => {
  const request = http.request(served.address + '/refused', { method, headers: { expect: '100-continue' }, agent: false })
  request.on('continue', () => t.fail('the server asks for the upload'))
  request.flushHeaders()
  const [response] = await once(request, 'response')
  t.equal(response.statusCode, 403)
  request.destroy()
})

t.test('http.request with Expect gets 100 when the handler reads', async (t) => {
  const request = http.request(served.address + '/upper', { method, headers: { expect: '100-continue' }, agent: false })
  request.on('continue', () => request.end('one'))
  request.flushHeaders()
  const [response] = await once(request, 'response')
  t.equal(String(await once(response, 'data')), 'ONE')
})

t.test('undici does not support Expect', { skip: withoutUndici }, async (t) => {
  await t.rejects(undici.request(served.address + '/upper', { method, headers: { expect: '100-continue' }, body: 'one' }), { code: 'UND_ERR_NOT_SUPPORTED' })
})

t.test('trailers come down to http.request', async (t) => {
  const request = http.request(served.address + '/import', { method, headers: { 'content-type': 'application/jsonl' }, agent: false })
  request.end('{"name":"a","amount":1}\n')
  const [incoming] = await once(request, 'response') as [http.IncomingMessage]
  await incoming.resume()
  await once(incoming, 'end')
  t.strictSame(incoming.trailers, { 'x-imported': '1', 'x-refused': '0' })
})

t.test('trailers come down to undici.request', { skip: withoutUndici }, async (t) => {
  const { body, trailers } = await undici.request(served.address + '/import', { method, headers: { 'content-type': 'application/jsonl' }, body: '{"name":"a","amount":1}\n' })
  await body.text()
  t.match(trailers, { 'x-imported': '1', 'x-refused': '0' })
})

t.test('trailers go up from http.request', async (t) => {
  const request = http.request(served.address + '/received', { method, agent: false, headers: { trailer: 'x-words' } })
  request.write('one')
  request.addTrailers({ 'x-words': '1' })
  request.end()
  const [incoming] = await once(request, 'response')
  incoming.resume()
  await once(incoming, 'end')
  t.match(served.last('/received'), { framing: 'chunked', trailers: { 'x-words': '1' } })
})
