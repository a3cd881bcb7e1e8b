// Programs in a process of their own.

import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'

const ROOT = join(__dirname, '../..')

/** How this process loads TypeScript. */
const LOADERS = process.execArgv.filter((argument, i, all) => /^--(import|require|loader)/.test(argument) || /^--(import|require|loader)$/.test(all[i - 1]))

/** Runs a script, which is not TypeScript, but may require it from the root of the repository. @returns what it prints, when it has ended by itself */
export async function run (script: string): Promise<string> {
  return (await promisify(execFile)(process.execPath, [...LOADERS, '--eval', script], { cwd: ROOT })).stdout
}
