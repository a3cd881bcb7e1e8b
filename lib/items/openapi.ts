// Items in the documents of @fastify/swagger.
//
// A route's own `schema` cannot tell of items: Fastify would validate with it, and refuses `content` that has only an `itemSchema`.
// So they are shown to `transform`, where swagger and the user's own function see them as schemas of bodies: $ref is resolved, and
// schemas of zod become JSON Schema. As swagger drops what stands beside `schema` in a media type, they go through it within that
// schema, as `x-itemSchema`. There they stay in documents that have no place for them; in OpenAPI 3.2, `transformObject` puts them
// into `itemSchema`.

import type { SendFormat, SendFormats } from '../../types/items.d.ts'
import { jsonSequence } from './json-seq.ts'
import { jsonLines } from './jsonl.ts'
import { serverSentEvents } from './sse.ts'

type Schema = Record<string, any>

/** What swagger passes to `transform`. */
interface RouteContext {
  schema?: Schema
  url: string
  route: { duplex?: unknown }
  /** In documents of OpenAPI 3. */
  openapiObject?: { openapi: string }
}

/** What swagger passes to `transformObject`. */
interface DocumentContext {
  openapiObject?: { openapi: string, paths: Schema }
  swaggerObject?: object
}

interface SwaggerOptions {
  transform?: ((context: RouteContext) => { schema?: Schema, url?: string }) | null
  transformObject?: ((context: DocumentContext) => unknown) | null
}

const DESCRIPTIONS = new Map<object, string>([
  [jsonLines, 'JSON Lines: a JSON text in each line, which conforms to `x-itemSchema`.'],
  [jsonSequence, 'A JSON text sequence (RFC 7464): each JSON text in it conforms to `x-itemSchema`.'],
  [serverSentEvents, 'Server-sent events: the data of each one is a JSON text, which conforms to `x-itemSchema`.']
])

/** Version 2.0 is that of Swagger. */
type Version = '2.0' | '3.0' | '3.1' | '3.2'

function versionOf ({ openapiObject }: { openapiObject?: { openapi: string } }): Version {
  if (openapiObject === undefined) return '2.0'
  const minor = Number(openapiObject.openapi.split('.')[1])
  return minor >= 2 ? '3.2' : minor === 1 ? '3.1' : '3.0'
}

/** The public `withItemSchemas()`. */
export function withItemSchemas<Options extends object> (options: Options): Options {
  const { transform, transformObject } = options as SwaggerOptions
  const wrapped: SwaggerOptions = {
    transform: (context) => transformRoute(context, transform ?? keep),
    transformObject (context) {
      if (versionOf(context) === '3.2') moveItemSchemas(context.openapiObject!.paths)
      return transformObject ? transformObject(context) : context.openapiObject ?? context.swaggerObject
    }
  }
  return { ...options, ...wrapped }
}

type Transform = NonNullable<SwaggerOptions['transform']>

const keep: Transform = ({ schema, url }) => ({ schema, url })

function transformRoute (context: RouteContext, transform: Transform): ReturnType<Transform> {
  const { receive, send } = (context.route.duplex ?? {}) as { receive?: SendFormats, send?: SendFormats }
  const received = [receive ?? []].flat() as SendFormat[]
  const sent = [send ?? []].flat() as SendFormat[]
  if (received.length === 0 && sent.length === 0) return transform(context)
  const version = versionOf(context)
  const consumes = received.flatMap(({ codec }) => codec.mediaTypes)
  const own = context.schema?.response?.[200] as Schema | undefined
  const showsSent = sent.length > 0 && (own === undefined || version !== '2.0') // which has one schema for all media types
  const schema: Schema = {
    ...context.schema,
    ...(received.length > 0 && { body: received[0].schema, consumes }),
    ...(showsSent && { response: { ...context.schema?.response, 200: addContent(own, sent, context.schema?.produces) } })
  }
  const result = transform({ ...context, schema })
  const shown = { ...(result.schema ?? schema) }
  if (shown.hide) return result
  // What the user's function has put in place of them is left alone.
  if (received.length > 0 && String(shown.consumes) === String(consumes)) {
    const convert = (format: SendFormat): unknown => format.schema === received[0].schema
      ? shown.body
      : transform({ ...context, schema: { ...schema, body: format.schema } }).schema?.body
    Object.assign(shown, showBody(received, convert, version))
  }
  const content = shown.response?.[200]?.content as Schema | undefined
  if (showsSent && content !== undefined) Object.assign(shown, showResponse(shown.response, own, sent, version))
  return { ...result, schema: shown }
}

/** @param convert gives the schema of a format as the user's `transform` makes it */
function showBody (received: SendFormat[], convert: (format: SendFormat) => unknown, version: Version): Schema {
  if (version === '2.0') return { body: commonSchema(received, convert(received[0])) }
  const converted = new Map(received.map((format) => [format, convert(format)]))
  return { body: { content: contentOf(received, (format) => bodySchema(format, converted.get(format), version)) }, consumes: undefined }
}

function showResponse (response: Schema, own: Schema | undefined, sent: SendFormat[], version: Version): Schema {
  const { content } = response[200] as { content: Schema }
  if (version === '2.0') return { response: { ...response, 200: commonSchema(sent, content[sent[0].codec.mediaTypes[0]]?.schema) }, produces: sent.flatMap(({ codec }) => codec.mediaTypes) }
  const shown = contentOf(sent, (format, type) => bodySchema(format, content[type]?.schema, version))
  return { response: { ...response, 200: { ...response[200], content: { ...content, ...shown, ...own?.content && pick(content, Object.keys(own.content)) } } } }
}

function pick (content: Schema, types: string[]): Schema {
  return Object.fromEntries(types.filter((type) => type in content).map((type) => [type, content[type]]))
}

/** The first format of a media type wins. */
function contentOf (formats: SendFormat[], schemaOf: (format: SendFormat, type: string) => unknown): Record<string, { schema: any }> {
  const content: Record<string, { schema: unknown }> = {}
  for (const format of formats) {
    for (const type of format.codec.mediaTypes) content[type] ??= { schema: schemaOf(format, type) }
  }
  return content
}

/** Adds the media types of items to what the user has declared of a response. */
function addContent (own: Schema | undefined, sent: SendFormat[], produces: string[] = ['application/json']): Schema {
  const content = contentOf(sent, ({ schema }) => schema)
  if (own === undefined || own.content !== undefined) return { ...own, content: { ...content, ...own?.content } }
  if (Object.keys(own).every((key) => key === 'description' || key === 'headers' || key.startsWith('x-'))) return { ...own, content }
  return { description: own.description, content: { ...content, ...Object.fromEntries(produces.map((type) => [type, { schema: own }])) } }
}

/** The schema of a whole body. No version before 3.2 can say that it is a sequence: to them it is text, or bytes. */
function bodySchema ({ codec }: SendFormat, item: unknown, version: Version): Schema {
  const type = codec.frame !== undefined ? { type: 'string' } : version === '3.1' ? {} : { type: 'string', format: 'binary' }
  const description = DESCRIPTIONS.get(codec) ?? 'A sequence of items: each one conforms to `x-itemSchema`.'
  return { ...type, description, 'x-itemSchema': codec === serverSentEvents && version === '3.2' ? eventSchema(item) : item }
}

/** Swagger 2.0 has one schema for all media types. */
function commonSchema (formats: SendFormat[], item: unknown): Schema {
  if (formats.length === 1) return bodySchema(formats[0], item, '2.0')
  const isSame = formats.every(({ schema }) => schema === formats[0].schema)
  return { type: 'string', description: 'A sequence of items. The media type says how they are written.', ...(isSame && { 'x-itemSchema': item }) }
}

/** An item of text/event-stream is a whole event (OpenAPI 3.2, section 4.14.3). */
function eventSchema (item: unknown): Schema {
  return { type: 'object', required: ['data'], properties: { data: { type: 'string', contentMediaType: 'application/json', contentSchema: item } } }
}

function moveItemSchemas (paths: Schema): void {
  for (const path of Object.values(paths)) {
    for (const operation of [...Object.values(path), ...Object.values(path.additionalOperations ?? {})] as Schema[]) {
      for (const body of [operation?.requestBody, ...Object.values(operation?.responses ?? {})] as (Schema | undefined)[]) {
        for (const media of Object.values(body?.content ?? {}) as Schema[]) {
          const { 'x-itemSchema': itemSchema } = media.schema ?? {}
          if (itemSchema === undefined) continue
          delete media.schema
          media.itemSchema = itemSchema
        }
      }
    }
  }
}
