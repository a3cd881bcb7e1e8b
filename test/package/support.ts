// Runs commands in a way that works on every platform.

import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

export const run = promisify(execFile)
export const ROOT = join(__dirname, '../..')

/** Runs a command of an installed package by its script, because the file in `.bin` may be a shell script. */
export async function runBin (directory: string, name: string, args: string[], cwd = ROOT): Promise<void> {
  const { bin } = JSON.parse(await readFile(join(directory, 'package.json'), 'utf8')) as { bin: Record<string, string> }
  await runProgram(process.execPath, [join(directory, bin[name]), ...args], cwd)
}

/** @throws an error with the output of the program as its message */
export async function runProgram (path: string, args: string[], cwd: string): Promise<void> {
  await run(path, args, { cwd }).catch((error) => { throw new Error(error.stdout + error.stderr) })
}

/** On Windows npm is a shell script. */
export async function npm (args: string[], cwd: string): Promise<string> {
  return (await run('npm', args, { cwd, shell: process.platform === 'win32' })).stdout
}

/** Packs the package into a directory. */
export async function pack (directory: string): Promise<{ tarball: string, contents: string[] }> {
  const [{ filename, files }] = JSON.parse(await npm(['pack', '--json', '--ignore-scripts', '--pack-destination', directory], ROOT)) as { filename: string, files: { path: string }[] }[]
  return { tarball: join(directory, filename), contents: files.map(({ path }) => path) }
}
