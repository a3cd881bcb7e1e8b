// The mistakes of new users: each is answered where it is made, with words that say what to write instead.

import { PassThrough, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { FastifyReply, FastifyRequest } from 'fastify'
import Fastify from 'fastify'
import { satisfies } from 'semver'
import t from 'tap'
import duplex from '../../lib/index.ts'
import { jsonl } from '../../lib/items/index.ts'
import { KINDS, serveKind } from '../support/kinds.ts'
import { UPGRADE, chunked, serve } from '../support/wire.ts'

type Handler = (request: FastifyRequest, reply: FastifyReply) => any

interface Mistake {
  handler: Handler
  options?: object
  code: string
  /** What the message says. */
  says: RegExp
}

const ITEMS = { duplex: { send: jsonl({ type: 'object' }) } }

/** Values that are neither strings nor bytes, and what is said of each. */
const NO_CONTENT: [string, unknown, RegExp][] = [
  ['an object', { a: 1 }, /an object \(Object\) .*send: jsonl\(Schema\).*JSON\.stringify/],
  ['an object without a prototype', Object.create(null), /an object \(without a prototype\).*jsonl/],
  ['an array', [1], /an array .*jsonl/],
  ['a number', 1, /a number \(1\) .*String\(value\)/],
  ['a boolean', false, /a boolean \(false\)/],
  ['a bigint', 1n, /a bigint \(1\)/],
  ['a symbol', Symbol('s'), /a symbol \(Symbol\(s\)\)/],
  ['undefined', undefined, /undefined .*reply\.duplex\.end\(\)/],
  ['null', null, /null .*reply\.duplex\.end\(\)/],
  ['a Blob', new Blob(['x']), /Blob.*blob\.stream\(\)/],
  ['an ArrayBuffer', new ArrayBuffer(1), /ArrayBuffer.*new Uint8Array\(buffer\)/]
]

function * letters (): Generator<string> { yield 'a' }

/** Answered with 500, as long as nothing was sent. */
const ANSWERED: Record<string, Mistake> = {
  ...Object.fromEntries(NO_CONTENT.flatMap(([name, value, says]) => [
    [`writes ${name}`, { handler: async (_request: unknown, { duplex }: FastifyReply) => { duplex.write(value as string) }, code: 'CONTENT', says }],
    [`yields ${name}`, { handler: async function * () { yield value as string }, code: 'CONTENT', says }]
  ])),
  'ends with an object': { handler: (_request, { duplex }) => { duplex.end({} as never) }, code: 'CONTENT', says: /JSON\.stringify/ },
  'ends with an object, and a callback': { handler: async (_request, { duplex }) => { duplex.end(1 as never, () => {}) }, code: 'CONTENT', says: /String\(value\)/ },
  'writes an item as bytes': { handler: async (_request, { duplex }) => { duplex.write({} as never) }, options: ITEMS, code: 'CONTENT', says: /reply\.duplex\.send\(item\)/ },
  'returns a stream of objects': { handler: async () => Readable.from([{}]), code: 'CONTENT', says: /jsonl/ },
  'pipes objects': {
    handler: (_request, { duplex }) => {
      const objects = new PassThrough({ objectMode: true })
      objects.pipe(duplex)
      objects.end({})
    },
    code: 'CONTENT',
    says: /jsonl/
  },
  'pipes objects in a pipeline': { handler: async (_request, { duplex }) => pipeline(new PassThrough({ objectMode: true }).end({}), duplex), code: 'CONTENT', says: /jsonl/ },
  'returns an iterator that is not asynchronous': { handler: async () => ['a'].values(), code: 'BODY', says: /async function \*.*array/ },
  'returns a generator object': { handler: () => letters(), code: 'BODY', says: /async function \*/ },
  'sends a generator object': { handler: (_request, reply) => { reply.send(letters()) }, code: 'BODY', says: /async function \*/ },
  'returns a Blob': { handler: async () => new Blob(['x']), code: 'BODY', says: /blob\.stream\(\)/ }
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: answered with what to do instead`, async (t) => {
    const { ask, log } = await serveKind(t, kind, (app, routeOptions) => {
      Object.values(ANSWERED).forEach(({ handler, options = { duplex: true } }, i) => { app.post(`/${i}`, { ...options, ...routeOptions }, handler as never) })
      app.post('/after', { duplex: true, ...routeOptions }, async (_request, reply) => { reply.duplex.end('after') })
    })
    const mistakes = Object.entries(ANSWERED)
    for (let i = 0; i < mistakes.length; i++) {
      const [mistake, { code, says }] = mistakes[i]
      for (const [path, statusCode] of [[`/${i}`, 500], ['/after', 200]] as const) {
        const asked = await ask(path, kind === KINDS['asynchronous constraint'] ? { later: 'yes' } : {})
        asked.end()
        t.equal(await asked.status(), statusCode, `${mistake}: ${path}`)
        const body = await asked.body()
        if (statusCode === 200) t.equal(body, 'after')
        else t.match(JSON.parse(body), { code: `FST_ERR_DUPLEX_${code}`, message: says }, mistake)
      }
    }
    t.strictSame(log.filter(({ level }) => level > 30).map(({ err }) => err?.code), mistakes.map(([, { code }]) => `FST_ERR_DUPLEX_${code}`), 'one line each')
  })
}

t.test('refused when the route is added', async (t) => {
  const app = Fastify()
  await app.register(duplex)
  t.teardown(() => app.close())
  t.throws(() => app.post('/', { duplex: true }, letters as never), { code: 'FST_ERR_DUPLEX_SYNC_GENERATOR', message: /POST \/.*async function \*/ })
  t.throws(() => app.route({ method: 'PUT', url: '/', ...ITEMS, handler: letters as never }), { code: 'FST_ERR_DUPLEX_SYNC_GENERATOR', message: /PUT \// })
  app.get('/', letters as never)
})

const leavesOpen = satisfies(require('fastify/package.json').version, '<5.12.0') && 'older versions of Fastify leave a response open whose head went past them'

t.test('reply.raw beside reply.duplex', { skip: leavesOpen }, async (t) => {
  const { connect, log } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (_request, reply) => {
      reply.raw.writeHead(200)
      reply.duplex.end('x')
    })
  })
  const wire = await connect()
  await wire.send(chunked('/')).ended
  t.match(log.find(({ level }) => level === 50), { err: { code: 'FST_ERR_DUPLEX_HEAD_SENT', message: /reply\.raw was used.*reply\.code\(\) and reply\.header\(\).*reply\.duplex/ } })
})

t.test('strings and bytes are content', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async function * (_request, { duplex }) {
      duplex.write('a')
      duplex.write(new DataView(Uint8Array.of(98).buffer))
      yield Buffer.from('c')
      yield Uint8Array.of(100)
      duplex.end(undefined as never)
    })
  })
  t.match(await (await connect()).request(chunked('/')), { statusCode: 200, body: 'abcd' })
})

// Only logged, once for a route

interface Warned {
  handler: Handler
  options?: object
  /** The body of the response. */
  body: string
  code: string | null
  says?: RegExp
}

async function readAll (stream: AsyncIterable<unknown>): Promise<string> {
  let text = ''
  for await (const chunk of stream) text += String(chunk)
  return text
}

const onSend = async (_request: FastifyRequest, reply: FastifyReply): Promise<void> => { reply.header('x-hook', 'ran') }

const WARNED: Record<string, Warned> = {
  'onSend hooks that do not run': { handler: async (_request, { duplex }) => duplex.end('x'), options: { onSend }, body: 'x', code: 'ON_SEND', says: /onSend: true.*onSend: false/ },
  'onSend hooks that are left out': { handler: async (_request, { duplex }) => duplex.end('x'), options: { onSend, duplex: { onSend: false } }, body: 'x', code: null },
  'onSend hooks of an ordinary answer': { handler: async () => 'x', options: { onSend }, body: 'x', code: null },
  'an onSend hook that gives a payload': { handler: async (_request, { duplex }) => duplex.end('x'), options: { onSend: async () => 'other', duplex: { onSend: true } }, body: 'x', code: 'ON_SEND_PAYLOAD', says: /dropped/ },
  'reply.trailer()': { handler: async (_request, reply) => { reply.trailer('etag', async () => 'x').duplex.end('x') }, body: 'x', code: 'REPLY_TRAILER', says: /setTrailers\(\)/ },
  'a loop over request.raw': { handler: async (request, { duplex }) => { duplex.end(`[${await readAll(request.raw)}]`) }, body: '', code: 'RAW_REQUEST', says: /reply\.duplex/ },
  'a loop over request.raw, later': { handler: async (request, { duplex }) => { await null; duplex.write('['); await readAll(request.raw); duplex.end(']') }, body: '', code: 'RAW_REQUEST', says: /reply\.duplex/ },
  'listeners of request.raw': { handler: (request, { duplex }) => { request.raw.on('data', () => {}); duplex.end('x') }, body: 'x', code: 'RAW_REQUEST', says: /reply\.duplex/ },
  'a listener for readable of request.raw, beside reply.duplex': { handler: (request, { duplex }) => { duplex.on('data', () => {}); request.raw.on('readable', () => {}); duplex.end('x') }, body: 'x', code: 'RAW_REQUEST', says: /reply\.duplex/ },
  'two loops': { handler: async (_request, { duplex }) => { await Promise.all([readAll(duplex), readAll(duplex)]); duplex.end('x') }, body: 'x', code: 'READERS', says: /one place/ },
  'one loop after the other': { handler: async (_request, { duplex }) => { for await (const chunk of duplex) if (chunk.length > 0) break; await readAll(duplex); duplex.end('x') }, body: 'x', code: null },
  'a loop, and a listener that counts': {
    handler: async (_request, { duplex }) => {
      let size = 0
      duplex.on('data', ({ length }) => { size += length })
      const text = await readAll(duplex)
      duplex.end(`${text} ${size}`)
    },
    body: 'abc 3',
    code: null
  },
  'request.body': { handler: async (request, { duplex }) => { duplex.end(String(request.body)) }, body: 'undefined', code: null }
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: logged once for a route`, async (t) => {
    const { ask, log } = await serveKind(t, kind, (app, routeOptions) => {
      for (const [i, { handler, options }] of Object.values(WARNED).entries()) app.post(`/${i}`, { duplex: true, ...options, ...routeOptions }, handler as never)
    })
    for (const [i, [mistake, { body, code, says }]] of Object.entries(WARNED).entries()) {
      const before = log.length
      for (let times = 0; times < 2; times++) {
        const asked = await ask(`/${i}`, kind === KINDS['asynchronous constraint'] ? { later: 'yes' } : {})
        asked.write('abc')
        asked.end()
        t.equal(await asked.status(), 200, mistake)
        const received = await asked.body()
        if (body !== '') t.equal(received, body, mistake)
      }
      const warnings = log.slice(before).filter(({ level }) => level > 30)
      t.match(warnings, code === null ? [] : [{ level: 40, err: { code: `FST_ERR_DUPLEX_${code}`, message: says } }], mistake)
      t.equal(warnings.length, code === null ? 0 : 1, mistake)
    }
  })
}

t.test('a detached connection is not logged as completed with 200', async (t) => {
  for (const disableRequestLogging of [false, true]) {
    const { connect, log } = await serve(t, 'tcp', (app) => {
      app.get('/own', { duplex: true }, (_request, { duplex }) => { duplex.detach().socket.end('HTTP/1.1 299 x\r\n\r\n') })
      app.get('/tunnel', { duplex: true }, (_request, reply) => {
        reply.code(101).header('upgrade', 'x').duplex.flushHeaders()
        reply.duplex.detach().socket.end()
      })
    }, { fastify: { disableRequestLogging } })
    for (const path of ['/own', '/tunnel']) await (await connect()).send(UPGRADE(path)).ended
    const ends = log.filter(({ msg }) => /completed|detached|errored/.test(msg)).map(({ msg, res, level }) => [level, msg, res?.statusCode])
    t.strictSame(ends, disableRequestLogging ? [] : [[30, 'connection detached', undefined], [30, 'request completed', 101]])
  }
})
