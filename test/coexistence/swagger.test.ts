// Items in the documents of @fastify/swagger. Each document is checked with a validator of OpenAPI.

import assert from 'node:assert/strict'
import swagger from '@fastify/swagger'
import Fastify, { type FastifyInstance } from 'fastify'
import { jsonSchemaTransform, jsonSchemaTransformObject, serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod'
import t, { type Test } from 'tap'
import { z } from 'zod'
import duplex from '../../lib/index.ts'
import { itemCodec, jsonSeq, jsonl, sse, withItemSchemas } from '../../lib/items/index.ts'

const Row = { type: 'object', required: ['id'], properties: { id: { type: 'integer' } } } as const
const Result = { type: 'object', properties: { ok: { type: 'boolean' } } } as const
const LINES = 'JSON Lines: a JSON text in each line, which conforms to `x-itemSchema`.'
const SEQUENCE = 'A JSON text sequence (RFC 7464): each JSON text in it conforms to `x-itemSchema`.'
const EVENTS = 'Server-sent events: the data of each one is a JSON text, which conforms to `x-itemSchema`.'

type Document = Record<string, any>
type Setup = (app: FastifyInstance) => unknown

const handler = async (): Promise<void> => {}

async function make (t: Test, options: object, routes: Setup, { before = false, app = Fastify() as FastifyInstance } = {}): Promise<FastifyInstance> {
  t.teardown(() => app.close())
  if (before) await app.register(swagger, options)
  await app.register(duplex)
  if (!before) await app.register(swagger, options)
  await routes(app)
  await app.ready()
  return app
}

/** The document as clients get it. */
async function documentOf (t: Test, app: { swagger (): unknown }): Promise<Document> {
  const document = JSON.parse(JSON.stringify(app.swagger()))
  t.strictSame(await problemsOf(document), { valid: true })
  return document
}

async function problemsOf (document: Document): Promise<object> {
  const { Validator } = await import('@seriousme/openapi-schema-validator')
  return new Validator().validate(structuredClone(document))
}

const openapi = (version: string): { openapi: { openapi: string } } => ({ openapi: { openapi: version } })

function rows (app: FastifyInstance): void {
  app.post('/rows', {
    duplex: { receive: [jsonl(Row), jsonSeq(Result)], send: [jsonl(Result), sse(Result)] },
    schema: { tags: ['rows'], headers: { type: 'object', properties: { 'x-a': { type: 'string' } } }, response: { 404: { description: 'None', type: 'string' } } }
  }, handler)
}

const text = (description: string, item: object): object => ({ schema: { type: 'string', description, 'x-itemSchema': item } })

t.test('OpenAPI 3.2', async (t) => {
  for (const before of [true, false]) {
    const { paths } = await documentOf(t, await make(t, withItemSchemas(openapi('3.2.0')), rows, { before }))
    t.strictSame(paths['/rows'].post, {
      tags: ['rows'],
      parameters: [{ schema: { type: 'string' }, in: 'header', name: 'x-a', required: false }],
      requestBody: {
        required: true,
        content: { 'application/jsonl': { itemSchema: Row }, 'application/x-ndjson': { itemSchema: Row }, 'application/json-seq': { itemSchema: Result } }
      },
      responses: {
        200: {
          description: 'Default Response',
          content: {
            'application/jsonl': { itemSchema: Result },
            'application/x-ndjson': { itemSchema: Result },
            'text/event-stream': { itemSchema: { type: 'object', required: ['data'], properties: { data: { type: 'string', contentMediaType: 'application/json', contentSchema: Result } } } }
          }
        },
        404: { description: 'None', content: { 'application/json': { schema: { description: 'None', type: 'string' } } } }
      }
    })
  }
})

t.test('OpenAPI 3.0 and 3.1', async (t) => {
  for (const version of ['3.0.3', '3.1.0']) {
    for (const before of [true, false]) {
      const { paths } = await documentOf(t, await make(t, withItemSchemas(openapi(version)), rows, { before }))
      t.strictSame(paths['/rows'].post.requestBody, {
        required: true,
        content: { 'application/jsonl': text(LINES, Row), 'application/x-ndjson': text(LINES, Row), 'application/json-seq': text(SEQUENCE, Result) }
      })
      t.strictSame(paths['/rows'].post.responses[200].content, { 'application/jsonl': text(LINES, Result), 'application/x-ndjson': text(LINES, Result), 'text/event-stream': text(EVENTS, Result) })
    }
  }
})

t.test('Swagger 2.0', async (t) => {
  const app = await make(t, withItemSchemas({ swagger: {} }), (app) => {
    rows(app)
    app.post('/lines', { duplex: { receive: jsonl(Row), send: jsonSeq(Result) } }, handler)
    app.post('/own', { duplex: { send: [jsonl(Row), jsonSeq(Row)] }, schema: { response: { 200: { description: 'Own', type: 'string' } } } }, handler)
  })
  const { paths } = await documentOf(t, app)
  t.match(paths['/lines'].post, {
    consumes: ['application/jsonl', 'application/x-ndjson'],
    produces: ['application/json-seq'],
    parameters: [{ in: 'body', schema: { type: 'string', description: LINES, 'x-itemSchema': Row } }],
    responses: { 200: { description: SEQUENCE, schema: { type: 'string', 'x-itemSchema': Result } } }
  })
  t.strictSame(paths['/rows'].post.parameters[0].schema, { type: 'string', description: 'A sequence of items. The media type says how they are written.' })
  t.strictSame(paths['/rows'].post.responses[200].schema, { type: 'string', description: 'A sequence of items. The media type says how they are written.', 'x-itemSchema': Result })
  t.match(paths['/own'].post.responses[200], { description: 'Own', schema: { type: 'string' } })
})

t.test('$ref, and plugins within each other', async (t) => {
  for (const before of [true, false]) {
    const app = await make(t, withItemSchemas(openapi('3.2.0')), async (app) => {
      app.addSchema({ $id: 'row', ...Row })
      await app.register(async (app) => {
        app.addSchema({ $id: 'result', type: 'object', properties: { row: { $ref: 'row#' }, next: { $ref: '#' } } })
        app.post('/rows', { duplex: { receive: jsonl({ $ref: 'row#' }), send: jsonl({ type: 'array', items: { $ref: 'result#' } }) } }, handler)
      }, { prefix: '/inner' })
    }, { before })
    const { paths, components: { schemas } } = await documentOf(t, app)
    const { requestBody, responses } = paths['/inner/rows'].post
    const name = (title: string): string => `#/components/schemas/${Object.keys(schemas).find((key) => schemas[key].title === title)}`
    t.strictSame(requestBody.content['application/jsonl'], { itemSchema: { $ref: name('row') } })
    t.strictSame(responses[200].content['application/jsonl'], { itemSchema: { type: 'array', items: { $ref: name('result') } } })
  }
  const outer = Fastify()
  t.teardown(() => outer.close())
  await outer.register(duplex)
  let inner: FastifyInstance | undefined
  await outer.register(async (app) => {
    inner = app
    await app.register(swagger, withItemSchemas(openapi('3.2.0')))
    rows(app)
  })
  await outer.ready()
  t.match((await documentOf(t, inner!)).paths['/rows'].post.requestBody, { content: { 'application/jsonl': { itemSchema: Row } } })
})

t.test('one direction, codecs of the user\'s own, other methods', async (t) => {
  const bytes = itemCodec({ mediaTypes: ['application/x-msgpack'], decode: () => null, encode: () => new Uint8Array() })
  const routes = (app: FastifyInstance): void => {
    app.post('/up', { duplex: { receive: bytes(Row) } }, handler)
    app.get('/down', { duplex: { send: bytes(Row) } }, handler)
    app.route({ method: ['PUT', 'PATCH'], url: '/both', duplex: { receive: jsonl(Row), send: jsonl(Row) }, handler })
    app.post('/bytes', { duplex: true }, handler)
  }
  const description = 'A sequence of items: each one conforms to `x-itemSchema`.'
  for (const [version, media] of [
    ['3.0.3', { schema: { type: 'string', format: 'binary', description, 'x-itemSchema': Row } }],
    ['3.1.0', { schema: { description, 'x-itemSchema': Row } }],
    ['3.2.0', { itemSchema: Row }]
  ] as const) {
    const { paths } = await documentOf(t, await make(t, withItemSchemas(openapi(version)), routes))
    t.strictSame(paths['/up'].post, { requestBody: { required: true, content: { 'application/x-msgpack': media } }, responses: { 200: { description: 'Default Response' } } })
    t.strictSame(paths['/down'].get, { responses: { 200: { description: 'Default Response', content: { 'application/x-msgpack': media } } } })
    t.strictSame(paths['/both'].put, paths['/both'].patch)
    t.strictSame(paths['/bytes'].post, { responses: { 200: { description: 'Default Response' } } })
  }
})

t.test('a method that only OpenAPI 3.2 can describe', async (t) => {
  const { paths } = await documentOf(t, await make(t, withItemSchemas(openapi('3.2.0')), (app) => {
    app.addHttpMethod('REPORT', { hasBody: true })
    app.route({ method: 'REPORT', url: '/rows', duplex: { receive: jsonl(Row) }, handler })
  }))
  t.match(paths['/rows'].additionalOperations.REPORT.requestBody, { content: { 'application/jsonl': { itemSchema: Row } } })
})

t.test('what the user has declared of the response', async (t) => {
  const duplex = { send: jsonl(Row) }
  const itemSchema = { itemSchema: Row }
  const app = await make(t, withItemSchemas(openapi('3.2.0')), (app) => {
    app.get('/description', { duplex, schema: { response: { 200: { description: 'Rows', headers: { 'x-a': { type: 'string' } } } } } }, handler)
    app.get('/schema', { duplex, schema: { produces: ['application/problem+json'], response: { 200: { description: 'Or this', type: 'string' } } } }, handler)
    app.get('/content', { duplex, schema: { response: { 200: { description: 'Own', content: { 'text/csv': { schema: { type: 'string' } }, 'application/jsonl': { schema: { type: 'string' } } } }, '4xx': { type: 'null', description: 'Bad' } } } }, handler)
  })
  const { paths } = await documentOf(t, app)
  const { '/description': { get: { responses: { 200: described } } }, '/schema': { get: { responses: { 200: schema } } }, '/content': { get: { responses: content } } } = paths
  t.strictSame(described, { description: 'Rows', headers: { 'x-a': { schema: { type: 'string' } } }, content: { 'application/jsonl': itemSchema, 'application/x-ndjson': itemSchema } })
  t.strictSame(schema, { description: 'Or this', content: { 'application/jsonl': itemSchema, 'application/x-ndjson': itemSchema, 'application/problem+json': { schema: { description: 'Or this', type: 'string' } } } })
  t.strictSame(content, {
    200: { description: 'Own', content: { 'application/jsonl': { schema: { type: 'string' } }, 'application/x-ndjson': itemSchema, 'text/csv': { schema: { type: 'string' } } } },
    '4XX': { description: 'Bad' }
  })
})

t.test('zod', async (t) => {
  for (const before of [true, false]) {
    const options = withItemSchemas({ ...openapi('3.2.0'), transform: jsonSchemaTransform, transformObject: jsonSchemaTransformObject })
    const app = await make(t, options, (app) => {
      app.setValidatorCompiler(validatorCompiler).setSerializerCompiler(serializerCompiler)
      const receive = [jsonl(z.object({ id: z.int().min(1).default(1) })), jsonSeq(z.string())]
      app.post('/rows', { duplex: { receive, send: jsonl(z.object({ at: z.iso.datetime() })) }, schema: { response: { 200: z.string().describe('Or text') } } }, handler)
      app.post('/plain', { schema: { body: z.object({ a: z.string() }), response: { 200: z.number() } } }, handler)
    }, { before })
    const { paths } = await documentOf(t, app)
    const { requestBody: { content }, responses } = paths['/rows'].post
    t.match(content, { 'application/jsonl': { itemSchema: { type: 'object', properties: { id: { type: 'integer', minimum: 1, default: 1 } } } }, 'application/json-seq': { itemSchema: { type: 'string' } } })
    t.notOk('required' in content['application/jsonl'].itemSchema, 'as it is before validation')
    t.match(responses[200], { description: 'Or text', content: { 'application/jsonl': { itemSchema: { properties: { at: { type: 'string', format: 'date-time' } }, required: ['at'] } }, 'application/json': { schema: { type: 'string' } } } })
    t.match(paths['/plain'].post, { requestBody: { content: { 'application/json': { schema: { properties: { a: { type: 'string' } } } } } } })
  }
})

t.test('a transform of the user\'s own', async (t) => {
  const seen: unknown[] = []
  const options = withItemSchemas({
    ...openapi('3.2.0'),
    hideUntagged: true,
    transform ({ schema, url, route }: any) {
      seen.push([url, schema.body, schema.consumes])
      if (url === '/own') return { url, schema: { ...schema, consumes: ['application/octet-stream'], body: { type: 'string', format: 'binary' }, response: undefined } }
      return url === '/none' ? {} : { url: url.replace('rows', 'lines'), schema: { ...schema, 'x-duplex': route.duplex !== undefined } }
    },
    transformObject: ({ openapiObject }: any) => ({ ...openapiObject, info: { title: 'Mine', version: String(Object.keys(openapiObject.paths['/lines'].post.requestBody.content['application/jsonl'])) } })
  })
  const schema = { tags: ['a'] }
  const app = await make(t, options, (app) => {
    const duplex = { receive: jsonl(Row), send: jsonl(Row) }
    for (const url of ['/rows', '/own', '/none']) app.post(url, { duplex, schema }, handler)
    app.post('/hidden', { duplex, schema: { ...schema, hide: true } as object }, handler)
    app.post('/untagged', { duplex, schema: {} }, handler)
    app.post('/by-tag', { duplex, schema: { tags: ['a', 'X-HIDDEN'] } }, handler)
    app.post('/replaced', { duplex, schema, config: { swaggerTransform: withItemSchemas({ transform: ({ schema }: any) => ({ schema, url: '/elsewhere' }) }).transform } as object }, handler)
  })
  const { paths, info } = await documentOf(t, app)
  t.strictSame(Object.keys(paths), ['/lines', '/own', '/none', '/elsewhere'])
  t.strictSame(info, { title: 'Mine', version: 'itemSchema' }, 'it sees the whole document')
  t.strictSame(seen[0], ['/rows', Row, ['application/jsonl', 'application/x-ndjson']])
  t.match(paths['/lines'].post, { 'x-duplex': true, tags: ['a'], requestBody: { content: { 'application/jsonl': { itemSchema: Row } } } })
  t.strictSame(paths['/own'].post, { tags: ['a'], requestBody: { required: true, content: { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } } }, responses: { 200: { description: 'Default Response' } } })
  for (const path of ['/none', '/elsewhere']) t.match(paths[path].post, { requestBody: { content: { 'application/jsonl': { itemSchema: Row } } }, responses: { 200: { content: { 'application/jsonl': { itemSchema: Row } } } } })
})

t.test('apps without items, and swagger without withItemSchemas()', async (t) => {
  const routes = (app: FastifyInstance): void => {
    app.addSchema({ $id: 'row', ...Row })
    app.post('/plain', { schema: { body: { $ref: 'row#' }, response: { 200: Result } } }, handler)
    app.post('/bytes', { duplex: true, schema: { description: 'Bytes' } }, handler)
  }
  for (const options of [openapi('3.2.0'), openapi('3.0.3'), { openapi: {} }, { swagger: {} }, {}]) {
    const documents = [options, withItemSchemas(options)].map(async (options) => documentOf(t, await make(t, options, routes)))
    const [without, wrapped] = await Promise.all(documents)
    t.strictSame(wrapped, without)
  }
  const app = await make(t, openapi('3.2.0'), rows)
  const { paths } = await documentOf(t, app)
  t.strictSame([paths['/rows'].post.requestBody, paths['/rows'].post.responses[200]], [undefined, undefined])
})

t.test('the schemas of the document are not those that Fastify validates with', async (t) => {
  const app = await make(t, withItemSchemas(openapi('3.2.0')), (app) => {
    app.post<{ Receive: { id: number }, Send: unknown }>('/', { duplex: { receive: jsonl(Row), send: jsonl(Result) } }, async function * (request, reply) {
      for await (const { id } of reply.duplex.items) yield { ok: id > 1, id }
    })
  })
  await documentOf(t, app)
  t.match((app.swagger({ yaml: true })), /itemSchema:/)
  const request = { method: 'POST', url: '/', headers: { 'content-type': 'application/jsonl' } } as const
  t.match(await app.inject({ ...request, payload: '{"id":1}\n{"id":2}' }), { statusCode: 200, payload: '{"ok":false}\n{"ok":true}\n' })
  t.match(await app.inject({ ...request, payload: '{"id":"x"}' }), { statusCode: 400 })
})

t.test('the validator finds what is wrong', async (t) => {
  const document = JSON.parse(JSON.stringify((await make(t, withItemSchemas(openapi('3.2.0')), rows)).swagger()))
  const { content } = document.paths['/rows'].post.requestBody
  assert(content['application/jsonl'].itemSchema)
  content['application/jsonl'] = { itemSchemas: Row }
  t.match(await problemsOf(document), { valid: false })
  content['application/jsonl'] = { itemSchema: 5 }
  t.match(await problemsOf(document), { valid: false })
})
