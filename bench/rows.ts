// The rows of the items measure: what the client sends, what the servers check it against, and what they answer.

import { join } from 'node:path'
import { type Static, Type, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox'
import { type ServiceDefinition, loadSync } from '@grpc/proto-loader'
import build from 'fast-json-stringify'

export const RowSchema = Type.Object({
  id: Type.Integer({ minimum: 1 }),
  name: Type.String({ minLength: 1, maxLength: 40 }),
  email: Type.String(),
  amount: Type.Number(),
  active: Type.Boolean()
})

export const ResultSchema = Type.Object({
  id: Type.Integer(),
  status: Type.String(),
  total: Type.Number()
})

export type Row = Static<typeof RowSchema>
export type Result = Static<typeof ResultSchema>

export function resultOf ({ id, amount }: Row): Result {
  return { id, status: 'accepted', total: amount + 1 }
}

const validate = TypeBoxValidatorCompiler({ schema: RowSchema, method: 'POST', url: '/rows', httpPart: 'body' }) as (row: unknown) => { value: Row } | { error: unknown }

/** The validator that the plugin gets from TypeBoxValidatorCompiler, for those who call it themselves. */
export function checked (row: unknown): Row {
  const result = validate(row)
  if ('error' in result) throw new Error('not a row')
  return result.value
}

/** The serializer that Fastify compiles for a response. */
export const serialize: (result: Result) => string = build(ResultSchema)

/** About 100 bytes each in JSON, all equally long: so chunks of one row each are, too. */
export const ROWS: Row[] = Array.from({ length: 16384 }, (_, i) => {
  const id = 3_000_000 + i
  return { id, name: `Customer ${id}`, email: `${id}@example.com`, amount: 1000.25 + i % 8000, active: true }
})

/** The gRPC service. */
export const rowsService = loadSync(join(__dirname, '..', 'peers', 'rows.proto'))['bench.Rows'] as ServiceDefinition
